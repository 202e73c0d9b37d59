"""Results of rows whose runs hold the answers that a test wants."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from helpers.answered_runs import change_row, write_run
from pkgllm.config.load import dump_config, load_config
from pkgllm.config.table_plan import TablePlan, load_table
from pkgllm.privacy.statements import Guarantee
from pkgllm.studies.tables.results import table_results
from pkgllm.studies.tables.rows import row_folder
from pkgllm.studies.tables.tuning import Tuned, recorded

BEYOND = {
    "coverage": 0.5,
    "tail_coverage": 0.25,
    "tail_share": None,
    "novelty": 3.0,
    "diversity": 0.1,
}


@pytest.fixture
def plan(tmp_path: Path) -> TablePlan:
    rows = [
        {"name": "Good", "config": "quickstart.yaml"},
        {"name": "Its base", "of": "Good", "model": "base", "published": {"mrr": 0.5}},
        {"name": "Late", "config": "quickstart.yaml"},
    ]
    table = {"title": "T", "reference": "Good", "published_in": "nowhere", "rows": rows}
    (tmp_path / "t.yaml").write_text(yaml.safe_dump(table))
    return load_table(str(tmp_path / "t.yaml"))


def write(
    plan: TablePlan, output: Path, tops: dict[str, dict[str, Sequence[str]]], seed: int = 0
) -> None:
    """Two clients, of which ``a`` is asked for a0 and a1, and ``b`` for b0."""
    folder = output / row_folder(plan.table.rows[0], seed)
    ranks = {"tuned": {"a": [1.0, 4.0], "b": [2.0]}, "base": {"a": [20.0, 10.0], "b": [2.0]}}
    write_run(folder, ranks, seed=seed)
    for number, client in enumerate("ab", start=1):
        change_row(folder, number, partial(_set_tops, client=client, tops=tops))
    (folder / "results.json").write_text(
        json.dumps({"beyond_accuracy": {"tuned": BEYOND, "base": {**BEYOND, "novelty": 5.0}}})
    )


def _set_tops(row: dict[str, Any], client: str, tops: dict[str, dict[str, Sequence[str]]]) -> None:
    for model, of_client in tops.items():
        row["models"][model].update(top=list(of_client[client]))


TOPS: dict[str, dict[str, Sequence[str]]] = {
    "tuned": {"a": ["a0", "x", "a1", *"cdefghi"], "b": ["x", "b0", *"cdefghij"]},
    "base": {"a": [*"cdefghijkl"], "b": []},
}


def rows_of(results: dict[str, Any]) -> dict[str, Any]:
    return {row["name"]: row for row in results["rows"]}


def test_values_by_hand(plan: TablePlan, tmp_path: Path) -> None:
    write(plan, tmp_path, TOPS)
    results = table_results(plan, recorded(plan), [0], {}, tmp_path)
    assert (results["clients"], results["queries"]) == (2, 3)
    found = rows_of(results)
    values = {metric: of["value"] for metric, of in found["Good"]["metrics"].items()}
    assert values == pytest.approx(
        {
            "precision@10": 3 / 20,
            "recall@10": 1.0,
            "hits@1": 1 / 3,
            "hits@3": 2 / 3,
            "hits@10": 1.0,
            "mrr": (1 + 1 / 4 + 1 / 2) / 3,
        }
    )
    base = {metric: of["value"] for metric, of in found["Its base"]["metrics"].items()}
    # The base model gave b no list; nothing is gained by that.
    assert base["precision@10"] == base["recall@10"] == 0.0
    assert base["mrr"] == pytest.approx((1 / 20 + 1 / 10 + 1 / 2) / 3)
    assert found["Its base"]["beyond"] == {**BEYOND, "novelty": 5.0}
    assert found["Its base"]["published"] == {"mrr": 0.5}
    assert found["Late"]["metrics"] is None
    assert found["Late"]["reason"] == "not run yet"
    (difference,) = results["differences"]
    assert difference["name"] == "Its base"
    expected = base["mrr"] - values["mrr"]
    assert difference["metrics"]["mrr"]["difference"] == pytest.approx(expected)


def test_the_table_says_what_its_rows_promise(plan: TablePlan, tmp_path: Path) -> None:
    write(plan, tmp_path, TOPS)
    results = table_results(plan, recorded(plan), [0], {}, tmp_path)
    (told,) = (note for note in results["notes"] if "Privacy" in note)
    assert told == (
        "Privacy: none, no epsilon can be given; nothing but updates leaves the clients."
    )


def test_the_table_hides_no_seed_that_promises_less(tmp_path: Path) -> None:
    budget = "privacy={name: client, delta: 1e-3, clip_norm: 1, noise_multiplier: 2}"
    rows = [{"name": "Good", "config": "quickstart.yaml", "set": [budget]}]
    table = {"title": "T", "reference": "Good", "published_in": "nowhere", "rows": rows}
    (tmp_path / "t.yaml").write_text(yaml.safe_dump(table))
    private = load_table(str(tmp_path / "t.yaml"))
    for seed, epsilon in ((0, 1.0), (1, 2.0)):
        write(private, tmp_path, TOPS, seed)
        folder = tmp_path / row_folder(private.table.rows[0], seed)
        (folder / "config.yaml").write_text(
            dump_config(load_config("quickstart.yaml", [f"seed={seed}", budget]))
        )
        results = json.loads((folder / "results.json").read_text())
        promised = asdict(Guarantee("client", epsilon, 1e-3, "prv"))
        (folder / "results.json").write_text(json.dumps({**results, "privacy": promised}))
    notes = table_results(private, recorded(private), [0, 1], {}, tmp_path)["notes"]
    assert [note.split(" at ")[0] for note in notes if "Privacy" in note] == [
        "Good: Privacy: epsilon 1.00",
        "Good: Privacy: epsilon 2.00",
    ]


def test_over_seeds_the_mean_and_its_spread(plan: TablePlan, tmp_path: Path) -> None:
    write(plan, tmp_path, TOPS)
    write(plan, tmp_path, {"tuned": {"a": ["a0"], "b": []}}, seed=1)
    failed = {str(row_folder(plan.table.rows[2], 1)): "no memory"}
    found = rows_of(table_results(plan, recorded(plan), [0, 1], failed, tmp_path))
    # Lists of one item and of none are divided by ten as well.
    assert found["Good"]["metrics"]["precision@10"]["value"] == pytest.approx((3 / 20 + 1 / 20) / 2)
    recall = found["Good"]["metrics"]["recall@10"]
    assert recall["value"] == pytest.approx((1 + 1 / 3) / 2)
    assert recall["sd"] == pytest.approx(np.std([1, 1 / 3], ddof=1))
    # Client a has 3 of 4 in both seeds and b 1 of 2, so resamples lie between.
    assert (recall["low"], recall["high"]) == pytest.approx((1 / 2, 3 / 4))
    assert found["Good"]["seeds"] == [0, 1]
    assert found["Late"]["reason"] == "no memory"


def test_a_federated_row_below_its_isolated_one_is_flagged(plan: TablePlan, tmp_path: Path) -> None:
    late = plan.table.rows[2].model_copy(update={"isolated": "Good", "grid": {"x": (), "y": ()}})
    good = plan.table.rows[0].model_copy(update={"grid": {"x": ()}})
    rows = (good, plan.table.rows[1], late)
    plan = TablePlan(plan.name, plan.path, plan.table.model_copy(update={"rows": rows}))
    write(plan, tmp_path, TOPS)
    for mrr, is_flagged in ((0.2, True), (0.4, False)):
        tuned = Tuned({"Late": {"x": 0.1, "y": mrr}, "Good": {"x": 0.3}})
        notes = table_results(plan, tuned, [0], {}, tmp_path)["notes"]
        assert (
            any(note.startswith("Flagged: Late is below isolation") for note in notes) == is_flagged
        )
    assert rows_of(table_results(plan, tuned, [0], {}, tmp_path))["Late"]["winner"] == "y"


def test_it_is_said_whom_the_reference_is_surely_above(plan: TablePlan, tmp_path: Path) -> None:
    folder = tmp_path / row_folder(plan.table.rows[0], 0)
    good = {f"c{n}": [1.0] for n in range(12)}
    write_run(folder, {"tuned": good, "base": {client: [9.0] for client in good}})
    measures = {"tuned": BEYOND, "base": BEYOND}
    (folder / "results.json").write_text(json.dumps({"beyond_accuracy": measures}))
    notes = table_results(plan, recorded(plan), [0], {}, tmp_path)["notes"]
    assert "Good, mrr, Holm p below 0.05: above Its base." in notes
    assert "Good, hits@10, Holm p below 0.05: not told apart from Its base." in notes


def test_without_the_reference_there_are_no_differences(plan: TablePlan, tmp_path: Path) -> None:
    results = table_results(plan, recorded(plan), [0], {}, tmp_path)
    assert results["differences"] == []
    assert results["notes"] == ["No differences, because Good is not finished."]
