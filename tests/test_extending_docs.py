"""The examples of docs/extending run, as packages beside pkgllm and chosen by YAML."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from helpers.command_line import RunCommand
from helpers.plugins import write_plugin
from pkgllm.baselines import SCORERS
from pkgllm.corpora import CORPORA
from pkgllm.errors import ConfigError
from pkgllm.federation.algorithms import ALGORITHMS
from pkgllm.kge.embeddings import EMBEDDINGS
from pkgllm.lm import decoder
from pkgllm.objectives import OBJECTIVES
from pkgllm.registry import Registry

PAGES = Path(__file__).parents[1] / "docs" / "extending"
REGISTRIES: list[Registry[Any]] = [ALGORITHMS, CORPORA, EMBEDDINGS, OBJECTIVES, SCORERS]
RUN: dict[str, Any] = {
    "base_model": {"name": "base-tiny"},
    "prompt": {"max_tokens": 128},
    "clients": {"unseen_share": 0.2},
    "training": {"local_steps": 1, "groups_per_step": 1},
}


def blocks(page: str, language: str) -> list[str]:
    text = (PAGES / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def settings(*pages: str) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for page in pages:
        tree |= yaml.safe_load("".join(blocks(page, "yaml")))
    return tree


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Install what the pages write, and ratings for the corpus, in a folder to run in."""
    modules: dict[str, str] = {}
    choices: dict[str, dict[str, str]] = {}
    for path in PAGES.glob("*.md"):
        for code in blocks(path.name, "python"):
            name = re.match(r"# (\w+)\.py\n", code)
            if name:
                modules[name[1]] = code
        for text in blocks(path.name, "toml"):
            choices |= tomllib.loads(text)["project"]["entry-points"]
    monkeypatch.syspath_prepend(write_plugin(tmp_path / "site", modules, choices))
    for registry in REGISTRIES:
        registry.refresh()
    monkeypatch.chdir(tmp_path)
    rows = (
        f"p{client},i{item},Song {item} (2001),{5 if (client + item) % 3 else 1},{item}"
        for client in range(8)
        for item in range(client % 3, 24, 2)
    )
    Path("ratings.csv").write_text("client,item,title,stars,day\n" + "\n".join(rows) + "\n")
    yield tmp_path
    monkeypatch.undo()
    for registry in REGISTRIES:
        registry.refresh()


@pytest.mark.slow
def test_objective_aggregator_corpus_and_scorer_of_a_package_make_a_run(
    plugin: Path, pkgllm: RunCommand
) -> None:
    tree = RUN | settings("objective.md", "aggregator.md", "corpus.md", "scorer.md")
    Path("mine.yaml").write_text(yaml.safe_dump(tree))
    done = pkgllm("train", "-c", "mine.yaml", "-o", "run")
    assert done.code == 0, done.err
    assert "longest_title" in done.out
    assert "Ratings: written for this example." in (plugin / "run" / "results.md").read_text()
    kept = yaml.safe_load((plugin / "run" / "config.yaml").read_text())
    assert kept["objective"] == {"name": "ipo", "beta": 1.0}
    assert kept["mode"]["strategy"] == {"name": "fedsign", "server_learning_rate": 0.001}


@pytest.mark.slow
def test_an_embedding_of_a_package_makes_a_run(plugin: Path, pkgllm: RunCommand) -> None:
    Path("mine.yaml").write_text(yaml.safe_dump(settings("embedding.md")))
    done = pkgllm("train", "-c", "mine.yaml", "-o", "run")
    assert done.code == 0, done.err
    assert "distmult, centralized" in done.out


def test_bounds_and_needs_of_a_package_s_choices_are_checked(plugin: Path) -> None:
    from pkgllm.config.load import load_any_config

    tree = RUN | settings("objective.md", "aggregator.md", "corpus.md", "scorer.md")
    tree["objective"] = {"name": "ipo", "beta": -1, "betta": 1}
    tree["mode"]["aggregation"] = "stack_svd"
    Path("mine.yaml").write_text(yaml.safe_dump(tree))
    with pytest.raises(ConfigError) as refused:
        load_any_config("mine.yaml")
    assert str(refused.value).splitlines() == [
        "mine.yaml: objective.beta: must be a number above 0, got -1",
        "mine.yaml: objective.betta: unknown key, got 1 (did you mean beta?)",
    ]


def test_a_family_of_base_models_is_proved_equal_to_its_own_forward_pass(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(decoder, "KNOWN_MODELS", decoder.KNOWN_MODELS)
    (code,) = blocks("base_model.md", "python")
    with pytest.raises(AssertionError, match="are not close"):
        exec(code.replace("len(q), dtype=torch.bool).triu(1)", "len(q), dtype=torch.bool)"), {})
    exec(code, {})
