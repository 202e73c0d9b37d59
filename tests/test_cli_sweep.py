"""``pkgllm sweep`` from the command line: one study that partly fails, and calls that cannot be."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from helpers.command_line import Refuse, RunCommand, snapshot

STUDY: dict[str, Any] = {
    "base": "small.yaml",
    "grid": {"cohort": {2: [], 50: ["mode.cohort_size=50"]}},
    "seeds": [3],
    "plot": {"x": "cohort"},
}


def write(**changes: Any) -> None:
    Path("study.yaml").write_text(yaml.safe_dump({**STUDY, **changes}, sort_keys=False))


@pytest.mark.slow
def test_a_study_of_which_a_point_fails(pkgllm: RunCommand, workplace: Path) -> None:
    write()
    done = pkgllm("sweep", "-c", "study.yaml")
    assert done.code == 1
    assert done.sentence == (
        "pkgllm: 1 of 2 runs failed, 50-seed3; runs/study/failures.jsonl says why; once that is "
        "mended, the same command goes on with them"
    )
    assert "run 1/2: 2-seed3\n" in done.err
    reason = "mode.cohort_size must be at most the number of training clients"
    assert f"run 2/2: 50-seed3 failed: {reason}" in done.err
    assert done.out.startswith("Study study: 1 of 2 runs finished\n")
    for piece in ("failed", "privacy unit", "all tables: runs/study/summary.md"):
        assert piece in done.out
    for name in ("summary.json", "summary.md", "plot.png", "plot.svg", "2-seed3/results.json"):
        assert (workplace / "runs/study" / name).is_file()
    assert list((workplace / "runs/study/50-seed3").iterdir()) == []
    before = snapshot(workplace)
    write(exclude=[{"cohort": 50}])
    done = pkgllm("sweep", "-c", "study.yaml", "-o", "runs/study")
    assert (done.code, done.err) == (0, "run 1/1: 2-seed3, finished already\n")
    changed = {name for name, content in snapshot(workplace).items() if before[name] != content}
    assert changed <= {
        "study.yaml",
        *(f"runs/study/{n}" for n in ("failures.jsonl", "summary.md", "summary.json")),
        *(f"runs/study/plot.{form}" for form in ("png", "svg")),
    }
    summary = json.loads((workplace / "runs/study/summary.json").read_text())
    assert [run["name"] for run in summary["runs"]] == ["2-seed3"]


@pytest.mark.parametrize(
    ("changes", "piece"),
    [
        (
            {"grid": {"a": {"x": ["training.rate=1"]}}},
            "study.yaml: x: training.rate: unknown key, got 1",
        ),
        ({"grid": {"a": {"x": ["training.local_steps"]}}}, "must be KEY=VALUE"),
        ({"base": "smal.yaml"}, "no configuration smal.yaml"),
        ({"plots": {}}, "plots: unknown key, got {} (did you mean plot?)"),
    ],
)
def test_studies_that_cannot_be(refuse: Refuse, changes: dict[str, Any], piece: str) -> None:
    write(**{"plot": None, **changes})
    assert piece in refuse("sweep", "-c", "study.yaml", "-o", "runs/new", code=2)


def test_calls_that_cannot_be(pkgllm: RunCommand, refuse: Refuse) -> None:
    assert "Missing option '--config'" in refuse("sweep", code=2)
    assert "no study no.yaml; looked for" in refuse("sweep", "-c", "no.yaml", code=2)
    done = pkgllm("sweep", "-c", "small.yaml")
    assert done.code == 2
    assert "small.yaml: corpus: unknown key" in done.err
    assert "small.yaml: base: missing, must be text" in done.err
    write()
    sentence = refuse("sweep", "-c", "study.yaml", "-o", "small.yaml/runs")
    assert "cannot make small.yaml/runs: Not a directory" in sentence
