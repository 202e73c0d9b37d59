"""An embedding from the command line, beside a language model that was asked the same."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from helpers.command_line import RUN, Refuse, RunCommand, snapshot

EMBEDDING: dict[str, Any] = {
    "corpus": {"name": "redial", "folder": "data/redial"},
    "embedding": {
        "name": "hake",
        "dim": 4,
        "schedule": {"epochs": 2, "batch_size": 64, "num_negatives": 2},
    },
    "training": {"device": "cpu"},
    "fold_in": {"steps": 2},
    "evaluation": {"bootstrap_resamples": 100},
}


@pytest.fixture(autouse=True)
def _configuration(workplace: Path) -> None:
    (workplace / "hake.yaml").write_text(yaml.safe_dump(EMBEDDING, sort_keys=False))


@pytest.mark.slow
def test_every_command_takes_an_embedding(pkgllm: RunCommand, workplace: Path) -> None:
    assert pkgllm("config", "check", "hake.yaml").out == "hake.yaml: good\n"
    shown = yaml.safe_load(pkgllm("config", "show", "hake.yaml").out)
    assert shown["embedding"]["schedule"]["epochs"] == 2
    assert shown["mode"] == {"name": "centralized"}
    done = pkgllm("train", "-c", "hake.yaml", "-o", "runs/hake", "--set", "embedding.margin=3")
    assert done.code == 0, done.err
    assert "hake, centralized" in done.out
    assert "all tables: runs/hake/results.md" in done.out
    assert pkgllm("train", "--resume", "runs/hake").code == 0
    done = pkgllm("evaluate", "runs/hake", "--set", "evaluation.part=validation")
    assert done.code == 0, done.err
    done = pkgllm("compare", str(RUN), "runs/hake", "-o", "both.md")
    assert done.code == 0, done.err
    assert "hake: tuned" in (workplace / "both.md").read_text()
    assert pkgllm("report", "runs/hake").code == 0
    assert "embedding" in (workplace / "runs/hake/report/report.md").read_text()


def test_calls_that_cannot_be(refuse: Refuse, workplace: Path) -> None:
    train = ("train", "-c", "hake.yaml", "-o", "runs/new")
    assert "embedding.marign: unknown key" in refuse(*train, "--set", "embedding.marign=3", code=2)
    assert "training.device must be auto" in refuse(*train, "--set", "training.device=tpu")
    own = "it belongs to a run that tunes a base_model, and this one trains an embedding"
    assert own in refuse(*train, "--set", "privacy.name=client", code=2)
    assert "must tune a base_model here" in refuse("privacy", "plan", "-c", "hake.yaml", code=2)
    before = snapshot(workplace)
    assert "differs in base_model" in refuse(
        "train", "--resume", str(RUN), "-c", "hake.yaml", code=2
    )
    assert snapshot(workplace) == before


def test_without_pykeen_one_line_says_what_to_install(
    refuse: Refuse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    sentence = refuse("train", "-c", "hake.yaml", "-o", "runs/new", code=2)
    assert sentence == (
        "pkgllm: embedding: needs the package pykeen, which is not installed; install it with: "
        "pip install pkgllm[kge]"
    )
