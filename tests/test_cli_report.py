"""The command report: on finished and unfinished runs, and on folders that are neither."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.command_line import RUN, Refuse, RunCommand, cut, snapshot

FILES = {"report.md"} | {
    f"{name}.{form}" for name in ("training", "updates", "clients") for form in ("png", "svg")
}


@pytest.mark.slow
def test_a_finished_run_is_reported_beside_its_files(pkgllm: RunCommand, workplace: Path) -> None:
    before = snapshot(workplace)
    done = pkgllm("report", str(RUN))
    assert done.code == 0, done.err
    assert done.out.splitlines() == [
        "not there: Validation by round: observation.evaluate_every is 0, so there is none.",
        "report: runs/earlier/report/report.md",
    ]
    after = snapshot(workplace)
    assert {name: after[name] for name in before} == before
    assert {path.name for path in (RUN / "report").iterdir()} == FILES
    text = (RUN / "report/report.md").read_text(encoding="utf-8")
    record = json.loads((RUN / "metrics.jsonl").read_text())
    assert f"| sent by clients | {record['bytes_up'] / 1000:.1f} kB |" in text
    results = json.loads((RUN / "results.json").read_text())
    hits = results["models"]["tuned"]["hits@10"]
    shown = "/".join(f"{hits[key]:.4f}".lstrip("0") for key in ("value", "low", "high"))
    value, low, high = shown.split("/")
    wanted = f"{value if hits['value'] < 1 else '1.0000'} [{low}, {high}]"
    assert wanted in text
    # How far into the tail every model goes, and how little its lists are what all like.
    assert "| model | catalogue coverage | tail coverage | tail share | novelty (bits) |" in text
    lists = text[text.index("**Beyond accuracy") :]
    for model, measures in results["beyond_accuracy"].items():
        assert f"| {model} | " in lists
        assert f"{measures['novelty']:.4f}" in lists
    assert "Losses are private" in text or "losses are private" in text
    # Which client had which value is nobody's business.
    assert not any(f'"{client}"' in text for client in "123456")
    svg = {path.name: path.read_bytes() for path in (RUN / "report").glob("*.svg")}
    assert pkgllm("report", str(RUN), "-o", "again").code == 0
    assert {path.name: path.read_bytes() for path in Path("again").glob("*.svg")} == svg
    assert Path("again/report.md").read_text(encoding="utf-8") == text


@pytest.mark.slow
def test_a_run_that_still_trains_is_reported_as_far_as_it_is(
    pkgllm: RunCommand, workplace: Path
) -> None:
    pkgllm("report", str(RUN))
    for name in ("results.json", "results.md", "predictions.jsonl", "timings.jsonl"):
        (RUN / name).unlink()
    # A line that a crash tore.
    cut(RUN / "metrics.jsonl", 5)
    done = pkgllm("report", str(RUN))
    assert done.code == 0, done.err
    assert "not there: Rounds: 0 of 1 are there; the run stopped or still goes." in done.out
    assert "not there: Final evaluation: results.json is missing" in done.out
    assert "not there: Spread over clients: predictions.jsonl is missing." in done.out
    # The plots of the earlier report, which no longer hold, are gone.
    assert [path.name for path in (RUN / "report").iterdir()] == ["report.md"]


def write(name: str, text: str) -> Callable[[], object]:
    return lambda: (RUN / name).write_text(text, encoding="utf-8")


ROUND = '{"round_num": 1, "cohort": ["1"], "failed": {}}\n'


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "pieces"),
    [
        (lambda: shutil.rmtree(RUN), ("no such folder",)),
        (lambda: (RUN / "config.yaml").unlink(), ("config.yaml is missing",)),
        (write("metrics.jsonl", "{\n" + ROUND), ("metrics.jsonl: line 1: must be JSON",)),
        (write("metrics.jsonl", "[1]\n"), ("metrics.jsonl: line 1: must be a JSON object",)),
        (
            write("metrics.jsonl", ROUND + ROUND),
            ("metrics.jsonl: line 2: round_num must be above 1, got 1",),
        ),
        (write("metrics.jsonl", "{}\n"), ("metrics.jsonl: line 1: must hold round_num",)),
        (
            write("metrics.jsonl", ROUND.replace("{}", "3")),
            ("metrics.jsonl: line 1: failed: must be a valid dictionary",),
        ),
        (
            write("validation.jsonl", '{"round_num": 1, "clients": 1, "queries": "x"}\n'),
            ("validation.jsonl: line 1: queries: must be a valid integer",),
        ),
        (write("timings.jsonl", "no\nno\n"), ("timings.jsonl: line 1: must be JSON",)),
        (write("results.json", "{"), ("results.json: must be JSON",)),
        (write("results.json", '{"models": 3}'), ("results.json: does not hold the results",)),
        (write("predictions.jsonl", "{}\n"), ("predictions.jsonl: line 1: must hold client;",)),
        (write("provenance.json", "[]"), ("provenance.json",)),
        (write("report", "a file"), ("cannot write the report to runs/earlier/report",)),
    ],
)
def test_what_is_damaged_is_named(
    refuse: Refuse, damage: Callable[[], object], pieces: tuple[str, ...], workplace: Path
) -> None:
    damage()
    sentence = refuse("report", str(RUN))
    assert all(piece in sentence for piece in pieces), sentence


def test_the_help_loads_nothing_heavy() -> None:
    script = (
        "import sys\n"
        "from pkgllm.cli.app import main\n"
        "sys.argv = ['pkgllm', '--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'numpy', 'matplotlib', 'flwr', 'pydantic', 'rich', 'tensorboard'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    finished = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "report" in finished.stdout
    assert finished.stdout.splitlines()[-1] == "[]"
