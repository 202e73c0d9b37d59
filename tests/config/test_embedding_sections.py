from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pkgllm.config.differences import differences
from pkgllm.config.documents import write_yaml
from pkgllm.config.load import load_any_config, load_config
from pkgllm.config.schema import EmbeddingExperiment
from pkgllm.errors import ConfigError
from pkgllm.kge.embeddings.kbgat import Kbgat

HAKE: dict[str, Any] = {"corpus": {"name": "small_world"}, "embedding": {"name": "hake"}}
TUNED: dict[str, Any] = {
    "corpus": {"name": "small_world"},
    "base_model": {"name": "base-tiny"},
    "objective": {"name": "kto"},
    "mode": {"name": "local", "rounds": 1},
}


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def loaded(tree: dict[str, Any], *overrides: str) -> EmbeddingExperiment:
    Path("x.yaml").write_text(write_yaml(tree), encoding="utf-8")
    found = load_any_config("x.yaml", overrides)
    assert isinstance(found, EmbeddingExperiment)
    return found


def refused(tree: dict[str, Any], *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        loaded(tree, *overrides)
    return str(caught.value).splitlines()


def test_a_schedule_keeps_what_is_not_given_of_its_own_model() -> None:
    whole = loaded({**HAKE, "embedding": {"name": "kbgat"}}).embedding
    tree = {**HAKE, "embedding": {"name": "kbgat", "attention_schedule": {"epochs": 3}}}
    part = loaded(tree, "embedding.decoder_schedule.batch_size=7").embedding
    assert isinstance(whole, Kbgat)
    assert isinstance(part, Kbgat)
    assert whole == Kbgat()
    assert part.attention_schedule == replace(whole.attention_schedule, epochs=3)
    assert part.decoder_schedule == replace(whole.decoder_schedule, batch_size=7)
    assert part.transe_schedule == whole.transe_schedule


def test_wrong_keys_and_values_are_named_where_they_stand() -> None:
    tree = {**HAKE, "embedding": {"name": "hake", "margn": 2, "heads": 2, "schedule": {"epoch": 2}}}
    assert refused(tree) == [
        "x.yaml: embedding.schedule.epoch: unknown key, got 2 (did you mean epochs?)",
        "x.yaml: embedding.margn: unknown key, got 2 (did you mean margin?)",
        "x.yaml: embedding.heads: unknown key, got 2 (it belongs to kbgat, not to hake)",
    ]
    assert refused({**HAKE, "embedding": {"name": "hak"}}) == [
        "x.yaml: embedding.name: must be one of hake, kbgat, complex, rotate, tucker, comp_gcn, "
        'node_piece, got "hak" (did you mean hake?)'
    ]
    assert refused(HAKE, "embedding.schedule=5", "fold_in.steps=-1") == [
        "--set embedding.schedule: must be a section of keys and values, got 5",
        "--set fold_in.steps: must be a whole number of at least 0, got -1",
    ]


def test_the_two_kinds_of_run_do_not_mix() -> None:
    other = "it belongs to a run that tunes a base_model, and this one trains an embedding"
    assert refused({**HAKE, "base_model": {"name": "x"}}, "objective.name=kto") == [
        f"--set objective.name: unknown key objective ({other})",
        f'x.yaml: base_model: unknown key, got {{"name": "x"}} ({other})',
    ]
    own = "it belongs to a run that trains an embedding, and this one tunes a base_model"
    assert refused(TUNED, "embedding.dim=3") == [
        f"--set embedding.dim: unknown key embedding ({own})"
    ]
    assert refused({**TUNED, "fold_in": {}}) == [f"x.yaml: fold_in: unknown key, got {{}} ({own})"]
    loaded(HAKE)
    with pytest.raises(ConfigError, match="must tune a base_model here, and trains an embedding"):
        load_config("x.yaml")


def test_what_cannot_be_ranked_is_refused() -> None:
    tree = {**HAKE, "evaluation": {"part": "validation"}, "split": {"validation_share": 0}}
    assert "evaluation.part validation needs split.validation_share above 0" in refused(tree)[0]
    assert "evaluation.score must be sum" in refused(HAKE, "evaluation.score=pmi")[0]


def test_differences_between_the_kinds_are_told() -> None:
    Path("tuned.yaml").write_text(write_yaml(TUNED), encoding="utf-8")
    found = differences(load_any_config("tuned.yaml"), loaded(HAKE))
    assert "embedding.name: absent there, 'hake' given" in found
    assert "base_model.name: 'base-tiny' there, absent given" in found
