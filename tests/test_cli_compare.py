import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers.answered_runs import change_row, read_rows, write_rows
from helpers.command_line import RUN, Refuse, RunCommand, cut, snapshot


@pytest.fixture
def other(workplace: Path) -> Path:
    """A run with the same questions, another seed, and other answers of its tuned model."""
    copy = Path("runs/other")
    shutil.copytree(RUN, copy)
    config = (copy / "config.yaml").read_text()
    (copy / "config.yaml").write_text(config.replace("seed: 0", "seed: 1"))
    rows = read_rows(copy)
    for row in rows:
        row["models"]["tuned"]["ranks"] = [1.0] * len(row["held_out"])
    write_rows(copy, rows)
    return copy


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_one_run_has_the_numbers_of_its_results(pkgllm: RunCommand, workplace: Path) -> None:
    done = pkgllm("compare", str(RUN), "-m", "mrr", "--metric", "hits@10", "-o", "both.json")
    assert (done.code, done.err) == (0, "")
    both, results = read_json(Path("both.json")), read_json(RUN / "results.json")
    assert (both["clients"], both["queries"]) == (
        results["clients"],
        results["queries"],
    )
    assert [model["name"] for model in both["models"]] == list(results["models"])
    for model in both["models"]:
        for metric in ("mrr", "hits@10"):
            expected = results["models"][model["name"]][metric]
            assert model["metrics"][metric] == pytest.approx(expected)
    assert len(both["differences"]) == len(results["paired"])
    for pair in both["differences"]:
        for metric in ("mrr", "hits@10"):
            expected = results["paired"][f"{pair['first']}-{pair['second']}"][metric]
            tested = pair["metrics"][metric]
            assert {key: tested[key] for key in expected} == pytest.approx(expected)
            # Six clients: at best 2 of 64 ways to set the signs.
            assert 2 / 64 <= tested["p"] <= tested["p_holm"] <= 1
    assert done.out.startswith("Comparison of earlier\n")
    assert done.out.endswith("\nwritten to both.json\n")


@pytest.mark.parametrize("width", ["80", "120"])
def test_runs_beside_each_other(
    pkgllm: RunCommand, other: Path, monkeypatch: pytest.MonkeyPatch, width: str
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    before = snapshot(Path("runs"))
    done = pkgllm("compare", str(RUN), str(other))
    assert (done.code, done.err) == (0, "")
    assert max(map(len, done.out.splitlines())) <= int(width)
    words = " ".join(done.out.split())
    assert words.startswith("Comparison of earlier, other All clients: 6 clients, ")
    for piece in (
        "Mean and SD over seeds",
        "Hits@10: 9 paired differences",
        "MRR: 9 paired differences",
        "flipped in each of the 64 ways",
    ):
        assert piece in words
    assert snapshot(Path("runs")) == before


@pytest.mark.slow
def test_an_evaluation_is_compared_like_a_run(pkgllm: RunCommand, other: Path) -> None:
    assert pkgllm("evaluate", str(RUN)).code == 0
    done = pkgllm("compare", str(other), f"{RUN}/evaluations/001", "-o", "both.md")
    assert done.code == 0, done.err
    assert Path("both.md").read_text().startswith("## Comparison of other, 001\n")
    again = pkgllm("compare", str(RUN), f"{RUN}/evaluations/001", "-m", "mrr", "-o", "same.json")
    assert again.code == 0, again.err
    assert "one setting, but not each with a seed of its own" in " ".join(again.out.split())
    (difference, *_) = read_json(Path("same.json"))["differences"]
    assert difference["metrics"]["mrr"]["difference"] == 0


@pytest.mark.slow
def test_nothing_heavy_is_loaded(other: Path) -> None:
    script = (
        "import sys\n"
        "from pkgllm.cli.app import main\n"
        "try:\n"
        "    main()\n"
        "finally:\n"
        "    heavy = {'torch', 'transformers', 'peft', 'flwr', 'rdflib', 'datasets', 'scipy'}\n"
        "    print(sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "compare", str(RUN), str(other)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.stderr == "[]\n"
    assert "Comparison of earlier, other" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "pieces"),
    [
        ((), 2, ("Missing argument 'RUN...'. See pkgllm compare --help.",)),
        (("runs/no",), 1, ("run folder runs/no: no such folder",)),
        (("runs",), 1, ("run folder runs: not a finished run", "predictions.jsonl")),
        (("small.yaml",), 1, ("run folder small.yaml: no such folder",)),
        (("runs/earlier", "runs/earlier/"), 2, ("each run must be given once",)),
        (("runs/earlier", "-m", "recall"), 2, ("--metric recall: must be one of hits@1, ",)),
        (("runs/earlier", "-m", "mrr", "-m", "mrr"), 2, ("--metric mrr: must be given once",)),
        (
            ("runs/earlier", "-o", "both.csv"),
            2,
            ("--output both.csv: must end in .md or .json",),
        ),
        (
            ("runs/earlier", "-o", "runs/earlier/results.json"),
            1,
            ("--output runs/earlier/results.json: must be a new file",),
        ),
    ],
)
def test_calls_that_cannot_be(
    refuse: Refuse, arguments: tuple[str, ...], code: int, pieces: tuple[str, ...]
) -> None:
    sentence = refuse("compare", *arguments, code=code)
    assert all(piece in sentence for piece in pieces), sentence


BAD_OTHER: dict[str, tuple[Callable[[Path], object], int, tuple[str, ...]]] = {
    "other items": (
        lambda run: change_row(run, 2, lambda row: row.update(candidates=row["candidates"] + 1)),
        1,
        ("runs/earlier and runs/other: must have been asked the same queries", "candidates"),
    ),
    "fewer clients": (
        lambda run: write_rows(run, read_rows(run)[1:]),
        1,
        ("1 of the 6 clients of runs/earlier are not in runs/other",),
    ),
    "cut predictions": (
        lambda run: cut(run / "predictions.jsonl", 9),
        1,
        ("runs/other/predictions.jsonl: line 6: must be JSON",),
    ),
    "cut provenance": (
        lambda run: cut(run / "provenance.json", 9),
        1,
        ("runs/other/provenance.json: must be JSON",),
    ),
    "no predictions": (
        lambda run: (run / "predictions.jsonl").unlink(),
        1,
        ("runs/other: not a finished run, because predictions.jsonl is missing",),
    ),
    "broken config": (
        lambda run: (run / "config.yaml").write_text(
            (run / "config.yaml").read_text().replace("seed: 1", "seed: x")
        ),
        2,
        ("runs/other/config.yaml: seed: must be",),
    ),
}


@pytest.mark.parametrize("fault", BAD_OTHER)
def test_runs_that_cannot_be_compared(other: Path, refuse: Refuse, fault: str) -> None:
    spoil, code, pieces = BAD_OTHER[fault]
    spoil(other)
    sentence = refuse("compare", str(RUN), str(other), code=code)
    assert all(piece in sentence for piece in pieces), sentence


def test_an_output_that_cannot_be_written(pkgllm: RunCommand, workplace: Path) -> None:
    before = snapshot(workplace)
    done = pkgllm("compare", str(RUN), "-o", "no/such/both.md")
    assert done.code == 1
    assert done.sentence == (
        "pkgllm: cannot write no/such/both.md: No such file or directory; make its folder first"
    )
    assert snapshot(workplace) == before
