from pathlib import Path

import numpy as np
import pytest

from helpers.answered_runs import change_row, random_ranks, read_rows, write_run
from pkgllm.evaluation.significance import holm
from pkgllm.pipeline.comparison import compare
from pkgllm.studies.compare import RankedRuns, against_reference


def run(folder: Path, number: int, *, skill: float, seed: int = 0) -> Path:
    ranks = random_ranks(number, num_clients=6, skill=skill)
    return write_run(folder, {"tuned": ranks}, seed=seed)


def tuned(paths: dict[int, Path]) -> RankedRuns:
    return RankedRuns(paths, "tuned")


def test_with_one_seed_it_is_the_comparison_of_two_runs(tmp_path: Path) -> None:
    reference, strong, weak = (
        run(tmp_path / name, number, skill=skill)
        for number, (name, skill) in enumerate((("fair", 2.0), ("strong", 5.0), ("weak", 1.0)))
    )
    metrics = ("mrr", "hits@10", "adjusted_mrr")
    lines = {"fair": reference, "strong": strong, "weak": weak}
    tested, notes = against_reference(
        "fair", {name: tuned({0: path}) for name, path in lines.items()}, metrics=metrics
    )
    assert notes == []
    for point, path in zip(tested, (strong, weak), strict=True):
        (expected,) = compare([path, reference], metrics)["differences"]
        for metric in metrics:
            measured = dict(point["metrics"][metric])
            del measured["p_holm"], expected["metrics"][metric]["p_holm"]
            assert measured == pytest.approx(expected["metrics"][metric])
    for metric in metrics:
        p_values = np.array([point["metrics"][metric]["p"] for point in tested])
        corrected = [point["metrics"][metric]["p_holm"] for point in tested]
        assert corrected == pytest.approx(holm(p_values).tolist())


def test_over_seeds_a_client_changes_sides_as_one(tmp_path: Path) -> None:
    def both(name: str, ranks: dict[str, float]) -> dict[int, Path]:
        return {
            seed: write_run(
                tmp_path / f"{name}{seed}",
                {"tuned": {client: [rank] for client, rank in ranks.items()}},
                seed=seed,
            )
            for seed in (0, 1)
        }

    # Reciprocal ranks 1, 1, 1/2 against 1/2, 1/2, 1: each client gains or loses 1/2 in both seeds.
    point = both("point", {"a": 1.0, "b": 1.0, "c": 2.0})
    reference = both("reference", {"a": 2.0, "b": 2.0, "c": 1.0})
    lines = {"reference": tuned(reference), "x": tuned(point)}
    ((result,), _) = against_reference("reference", lines, metrics=["mrr"])
    assert (result["seeds"], result["clients"]) == ([0, 1], 3)
    # Two seeds: (1 + 1 - 1) over 6 queries. The sum of three signs is at least 1 from 0 always.
    assert result["metrics"]["mrr"]["difference"] == pytest.approx(1 / 6)
    assert result["metrics"]["mrr"]["p"] == 1.0
    # Without the loser, 2 of 4 ways to set the signs are that extreme: the seeds are not two
    # clients each, or it would be 2 of 16.
    for path in (*point.values(), *reference.values()):
        change_row(path, 3, lambda row: row["models"]["tuned"].update(ranks=[1.0]))
    ((result,), _) = against_reference("reference", lines, metrics=["mrr"])
    assert result["metrics"]["mrr"]["p"] == 4 / 8


def test_what_was_not_asked_the_same_is_named_and_not_tested(tmp_path: Path) -> None:
    reference, other, good = (run(tmp_path / n, i, skill=2.0) for i, n in enumerate("abc"))
    change_row(other, 1, lambda row: row.update(candidates=row["candidates"] + 1))
    assert read_rows(other)[0]["candidates"] == 101
    paths = {"base": {0: reference}, "other": {0: other}, "late": {3: good}, "good": {0: good}}
    lines = {name: tuned(of_line) for name, of_line in paths.items()}
    tested, notes = against_reference("base", lines, metrics=["mrr"])
    assert [point["name"] for point in tested] == ["good"]
    assert len(notes) == 2
    assert "other: no difference: " in notes[0]
    assert "must have been asked the same queries" in notes[0]
    assert notes[1] == "late: no difference, because no seed is finished here and there."
    alone = {"base": lines["base"], "not run": tuned({})}
    assert against_reference("base", alone, metrics=["mrr"]) == ([], [])
    tested, notes = against_reference("not run", alone, metrics=["mrr"])
    assert tested == []
    assert notes == ["No differences, because no run of the reference not run is finished."]


def test_models_of_two_names_are_compared_in_one_run_and_in_two(tmp_path: Path) -> None:
    ranks = {name: random_ranks(n, num_clients=6, skill=n + 1.0) for n, name in enumerate("ab")}
    both = write_run(tmp_path / "both", ranks)
    alone = write_run(tmp_path / "alone", {"tuned": ranks["b"]})
    reference = RankedRuns({0: both}, "a")
    lines = {"a": reference, "inside": RankedRuns({0: both}, "b"), "beside": tuned({0: alone})}
    (inside, beside), notes = against_reference("a", lines, metrics=["mrr"])
    assert notes == []
    assert inside["metrics"] == beside["metrics"]
    assert inside["metrics"]["mrr"]["difference"] != 0
    lines = {"a": reference, "none": tuned({0: both})}
    _, (note,) = against_reference("a", lines, metrics=["mrr"])
    assert note.endswith("does not rank tuned.")
