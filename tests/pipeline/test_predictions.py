from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.answered_runs import change_row, read_rows, write_rows, write_run
from pkgllm.errors import ConfigError, RunError
from pkgllm.pipeline.comparison import read_predictions, read_runs
from pkgllm.runs.predictions import Predictions, check_same_queries, run_names

TUNED = {"a": (1.0, 4.0), "b": (10.5,), "c": (2.0, 3.0, 98.0)}
BASE = {"a": (2.0, 8.0), "b": (20.0,), "c": (50.0, 60.0, 70.0)}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", {"tuned": TUNED, "base": BASE}, unseen=["b"], seed=3)


def read(folder: Path) -> Predictions:
    return read_predictions(folder, folder.name)


def test_what_was_written_is_read_back(run: Path) -> None:
    found = read(run)
    assert (found.name, found.path, found.seed) == ("run", run, 3)
    assert found.digests == {"split": "of seed 3"}
    assert {client: asked.held_out for client, asked in found.asked.items()} == {
        "a": ("a0", "a1"),
        "b": ("b0",),
        "c": ("c0", "c1", "c2"),
    }
    assert {asked.candidates for asked in found.asked.values()} == {100}
    assert found.seen_in_training == {"a": True, "b": False, "c": True}
    assert found.ranks("tuned", ["c", "a"]).tolist() == [2, 3, 98, 1, 4]
    assert found.ranks("base", ["b"]).tolist() == [20]
    assert [found.failures(model) for model in found.answers] == [0, 0]


def test_ranks_stand_in_the_order_of_the_items(run: Path) -> None:
    def turn(row: dict[str, Any]) -> None:
        row["held_out"].reverse()
        for model in row["models"].values():
            model["ranks"].reverse()

    before = read(run)
    change_row(run, 3, turn)
    after = read(run)
    assert after.answers == before.answers
    check_same_queries(before, after)


def test_a_line_ends_where_a_record_does_and_nowhere_else(run: Path) -> None:
    # U+2028 ends a line for Python's splitlines, and stands unescaped in JSON.
    change_row(run, 1, lambda row: row.update(client="a\u2028z"))
    assert list(read(run).asked) == ["a\u2028z", "b", "c"]


def test_a_setting_is_all_but_seed_and_place(run: Path, tmp_path: Path) -> None:
    models = {"tuned": TUNED}
    others = {
        "same": write_run(tmp_path / "same", models, seed=4, overrides=["output=elsewhere"]),
        "rate": write_run(tmp_path / "rate", models, overrides=["training.learning_rate=0.5"]),
        "read": write_run(tmp_path / "read", models, digests={"train": "other"}),
    }
    setting = read(run).setting
    assert {name: read(path).setting == setting for name, path in others.items()} == {
        "same": True,
        "rate": False,
        "read": False,
    }


def test_the_same_queries_in_another_order_are_the_same(run: Path) -> None:
    before = read(run)
    write_rows(run, read_rows(run)[::-1])
    check_same_queries(before, read(run))


OTHER_QUERIES: dict[str, tuple[Callable[[list[dict[str, Any]]], object], str]] = {
    "fewer clients": (
        lambda rows: rows.pop(),
        "1 of the 3 clients of {run} are not in {other}, one is 'c'",
    ),
    "more clients": (
        lambda rows: rows.append({**rows[0], "client": "d"}),
        "1 of the 4 clients of {other} are not in {run}, one is 'd'",
    ),
    "another item": (
        lambda rows: rows[0].update(held_out=["a0", "a7"]),
        "client 'a' has other held-out items",
    ),
    "candidates": (
        lambda rows: rows[1].update(candidates=101),
        "client 'b' has 100 and 101 candidates",
    ),
}


@pytest.mark.parametrize("case", OTHER_QUERIES)
def test_other_queries_are_refused(run: Path, tmp_path: Path, case: str) -> None:
    change, message = OTHER_QUERIES[case]
    other = write_run(tmp_path / "other", {"tuned": TUNED, "base": BASE})
    rows = read_rows(other)
    change(rows)
    write_rows(other, rows)
    with pytest.raises(RunError) as refused:
        check_same_queries(read(run), read(other))
    sentence = str(refused.value)
    assert sentence.startswith(f"{run} and {other}: must have been asked the same queries")
    assert message.format(run=run, other=other) in sentence
    # Which films a person likes is nobody's business.
    assert "a7" not in sentence


def ranks(value: object) -> Callable[[dict[str, Any]], None]:
    return lambda row: row["models"]["tuned"].update(ranks=value)


BAD_ROW: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "no client": (lambda row: row.pop("client"), "must hold client;"),
    "client is a number": (lambda row: row.update(client=1), "client: must be a valid string"),
    "seen is a number": (
        lambda row: row.update(seen_in_training=1),
        "seen_in_training: must be a valid boolean",
    ),
    "nothing held out": (
        lambda row: row.update(held_out=[]),
        "held_out: List should have at least 1 item",
    ),
    "no models": (
        lambda row: row.update(models={}),
        "models: Dictionary should have at least 1 item",
    ),
    "models is a list": (
        lambda row: row.update(models=["tuned"]),
        "models: must be a valid dictionary",
    ),
    "an item twice": (lambda row: row.update(held_out=["x", "x"]), "must be distinct ids"),
    "an item is a number": (
        lambda row: row.update(held_out=["x", 7]),
        "held_out.1: must be a valid string",
    ),
    "too few candidates": (lambda row: row.update(candidates=1), "must be distinct ids"),
    "a rank is missing": (ranks([1.0]), "model 'tuned' must have 2 ranks from 1 to 99"),
    "a rank is 0": (ranks([0, 4.0]), "2 ranks from 1 to 99"),
    "a rank behind the last": (ranks([1.0, 99.5]), "2 ranks from 1 to 99"),
    "a rank is a word": (ranks(["1", 4.0]), "models.tuned.ranks.0: must be a valid number"),
    "a rank is true": (ranks([True, 4.0]), "models.tuned.ranks.0: must be a valid number"),
    "a rank is NaN": (ranks([float("nan"), 4.0]), "2 ranks from 1 to 99"),
    "no ranks": (ranks(None), "models.tuned.ranks: must be a valid list"),
    "no list": (lambda row: row["models"]["tuned"].pop("top"), "must hold models.tuned.top;"),
    "an item of the list is a number": (
        lambda row: row["models"]["tuned"].update(top=["a", 1]),
        "models.tuned.top.1: must be a valid string",
    ),
    "failed is missing": (
        lambda row: row["models"]["base"].pop("failed"),
        "must hold models.base.failed;",
    ),
}


@pytest.mark.parametrize("case", BAD_ROW)
def test_a_damaged_record_is_named(run: Path, case: str) -> None:
    change, message = BAD_ROW[case]
    change_row(run, 1, change)
    with pytest.raises(RunError) as refused:
        read(run)
    assert str(refused.value).startswith(f"{run / 'predictions.jsonl'}: line 1: ")
    assert message in str(refused.value)
    assert str(refused.value).endswith("; rank the run again with pkgllm evaluate")


def test_a_last_rank_is_that_behind_all_candidates_but_the_other_held_out(run: Path) -> None:
    change_row(run, 1, ranks([1.0, 99.0]))
    assert read(run).ranks("tuned", "a").tolist() == [1, 99]


def test_records_that_contradict_each_other(run: Path) -> None:
    change_row(run, 3, lambda row: row["models"].pop("base"))
    with pytest.raises(
        RunError, match="line 3: must hold the models of the first line, tuned, bas"
    ):
        read(run)
    change_row(run, 2, lambda row: row.update(client="a"))
    with pytest.raises(RunError, match="line 2: client 'a' must stand once"):
        read(run)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("predictions.jsonl", b"", r"predictions.jsonl: must hold at least one client"),
        ("predictions.jsonl", b'{"client": "a', r"predictions.jsonl: line 1: must be JSON"),
        ("predictions.jsonl", b"[]\n", r"predictions.jsonl: line 1: it must be a JSON object"),
        ("predictions.jsonl", b"\xff\n", r"predictions.jsonl: must be text in UTF-8"),
        ("provenance.json", b"{", r"provenance.json: must be JSON"),
        ("provenance.json", b"{}", r"provenance.json: must hold digests"),
        (
            "provenance.json",
            b'{"digests": {"a": 1}}',
            r"provenance.json: digests.a: must be a valid string",
        ),
    ],
)
def test_a_damaged_file_is_named(run: Path, name: str, content: bytes, message: str) -> None:
    (run / name).write_bytes(content)
    with pytest.raises(RunError, match=message):
        read(run)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["config.yaml", "provenance.json", "predictions.jsonl"])
def test_a_missing_file_is_named(run: Path, name: str) -> None:
    (run / name).unlink()
    with pytest.raises(RunError, match=f"{run}: not a finished run, because {name} is missing"):
        read(run)
    (run / name).mkdir()
    with pytest.raises((RunError, ConfigError), match=name):
        read(run)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="nowhere: no such folder"):
        read(tmp_path / "nowhere")


def test_other_queries_are_refused_whichever_run_has_them(tmp_path: Path) -> None:
    models = {"tuned": TUNED}
    runs = [write_run(tmp_path / name, models) for name in ("x", "y", "z")]
    change_row(runs[2], 2, lambda row: row.update(candidates=99))
    with pytest.raises(RunError, match=f"{runs[0]} and {runs[2]}: .* 100 and 99 candidates"):
        read_runs(runs)
    assert [run.name for run in read_runs(runs[:2])] == ["x", "y"]


def test_one_folder_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "run")
    for again in (tmp_path / "run", tmp_path / "link", tmp_path / "x" / ".." / "run"):
        with pytest.raises(ConfigError, match="each run must be given once, got this one twice"):
            read_runs([tmp_path / "run", again])
    with pytest.raises(ConfigError, match="at least one run"):
        read_runs([])


PATHS = st.lists(
    st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map(lambda parts: Path(*parts)),
    min_size=1,
    max_size=6,
    unique=True,
)


@given(PATHS)
def test_names_are_endings_that_tell_runs_apart(paths: list[Path]) -> None:
    names = run_names(paths)
    assert len(set(names)) == len(names)
    places = [path.resolve().parts for path in paths]
    for name, place in zip(names, places, strict=True):
        ending = Path(name).parts
        assert place[-len(ending) :] == ending
        # One part fewer would name several.
        shorter = ending[1:]
        assert not shorter or [p[-len(shorter) :] for p in places].count(shorter) > 1
