"""Results of rows whose runs hold the answers that a test wants."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.answered_runs import change_row, write_run
from helpers.tiny_studies import write_table
from pkgllm.config.load import dump_config, load_config
from pkgllm.privacy.statements import Guarantee
from pkgllm.studies.table_plan import TablePlan
from pkgllm.studies.table_results import table_results

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
    return write_table(tmp_path, rows, reference="Good")


def write(
    plan: TablePlan, output: Path, tops: dict[str, dict[str, Sequence[str]]], seed: int = 0
) -> None:
    """Two clients, of which ``a`` is asked for a0 and a1, and ``b`` for b0."""
    folder = output / plan.place(plan.table.rows[0], seed)
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
    results = table_results(plan, [0], {}, tmp_path)
    assert (results["clients"], results["queries"]) == (2, 3)
    lines = rows_of(results)
    values = {metric: of["value"] for metric, of in lines["Good"]["metrics"].items()}
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
    base = {metric: of["value"] for metric, of in lines["Its base"]["metrics"].items()}
    # The base model gave b no list; nothing is gained by that.
    assert base["precision@10"] == base["recall@10"] == 0.0
    assert base["mrr"] == pytest.approx((1 / 20 + 1 / 10 + 1 / 2) / 3)
    assert lines["Its base"]["beyond"] == {**BEYOND, "novelty": 5.0}
    assert lines["Its base"]["published"] == {"mrr": 0.5}
    assert lines["Late"]["metrics"] is None
    assert lines["Late"]["reason"] == "not run yet"
    (difference,) = results["differences"]
    assert difference["name"] == "Its base"
    expected = base["mrr"] - values["mrr"]
    assert difference["metrics"]["mrr"]["difference"] == pytest.approx(expected)


def test_the_table_states_the_privacy_of_its_rows(plan: TablePlan, tmp_path: Path) -> None:
    write(plan, tmp_path, TOPS)
    results = table_results(plan, [0], {}, tmp_path)
    (privacy,) = (note for note in results["notes"] if "Privacy" in note)
    assert privacy == (
        "Privacy: none, no epsilon can be given; nothing but updates leaves the clients."
    )


def test_the_table_states_the_privacy_of_every_seed(tmp_path: Path) -> None:
    budget = "privacy={name: client, delta: 1e-3, clip_norm: 1, noise_multiplier: 2}"
    rows = [{"name": "Good", "config": "quickstart.yaml", "set": [budget]}]
    private = write_table(tmp_path, rows, reference="Good")
    for seed, epsilon in ((0, 1.0), (1, 2.0)):
        write(private, tmp_path, TOPS, seed)
        folder = tmp_path / private.place(private.table.rows[0], seed)
        (folder / "config.yaml").write_text(
            dump_config(load_config("quickstart.yaml", [f"seed={seed}", budget]))
        )
        results = json.loads((folder / "results.json").read_text())
        guarantee = asdict(Guarantee("client", epsilon, 1e-3, "prv"))
        (folder / "results.json").write_text(json.dumps({**results, "privacy": guarantee}))
    notes = table_results(private, [0, 1], {}, tmp_path)["notes"]
    assert [note.split(" at ")[0] for note in notes if "Privacy" in note] == [
        "Good: Privacy: epsilon 1.00",
        "Good: Privacy: epsilon 2.00",
    ]


def test_over_seeds_the_mean_and_its_spread(plan: TablePlan, tmp_path: Path) -> None:
    write(plan, tmp_path, TOPS)
    write(plan, tmp_path, {"tuned": {"a": ["a0"], "b": []}}, seed=1)
    failed = {plan.place(plan.table.rows[2], 1): "no memory"}
    lines = rows_of(table_results(plan, [0, 1], failed, tmp_path))
    # Lists of one item and of none are divided by ten as well.
    assert lines["Good"]["metrics"]["precision@10"]["value"] == pytest.approx((3 / 20 + 1 / 20) / 2)
    recall = lines["Good"]["metrics"]["recall@10"]
    assert recall["value"] == pytest.approx((1 + 1 / 3) / 2)
    assert recall["sd"] == pytest.approx(np.std([1, 1 / 3], ddof=1))
    # Client a has 3 of 4 in both seeds and b 1 of 2, so resamples lie between.
    assert (recall["low"], recall["high"]) == pytest.approx((1 / 2, 3 / 4))
    assert lines["Good"]["seeds"] == [0, 1]
    assert lines["Late"]["reason"] == "no memory"


def test_a_federated_row_below_its_isolated_one_is_flagged(plan: TablePlan, tmp_path: Path) -> None:
    late = plan.table.rows[2].model_copy(update={"isolated": "Good", "grid": {"x": (), "y": ()}})
    good = plan.table.rows[0].model_copy(update={"grid": {"x": ()}})
    rows = (good, plan.table.rows[1], late)
    plan = replace(plan, table=plan.table.model_copy(update={"rows": rows}))
    write(plan, tmp_path, TOPS)
    for mrr, is_flagged in ((0.2, True), (0.4, False)):
        plan = replace(plan, tuning={"Late": {"x": 0.1, "y": mrr}, "Good": {"x": 0.3}})
        notes = table_results(plan, [0], {}, tmp_path)["notes"]
        assert (
            any(note.startswith("Flagged: Late is below isolation") for note in notes) == is_flagged
        )
    assert rows_of(table_results(plan, [0], {}, tmp_path))["Late"]["winner"] == "y"


def test_rows_significantly_below_the_reference_are_named(plan: TablePlan, tmp_path: Path) -> None:
    folder = tmp_path / plan.place(plan.table.rows[0], 0)
    good = {f"c{n}": [1.0] for n in range(12)}
    write_run(folder, {"tuned": good, "base": {client: [9.0] for client in good}})
    measures = {"tuned": BEYOND, "base": BEYOND}
    (folder / "results.json").write_text(json.dumps({"beyond_accuracy": measures}))
    notes = table_results(plan, [0], {}, tmp_path)["notes"]
    assert "Good, mrr, Holm p below 0.05: above Its base." in notes
    assert "Good, hits@10, Holm p below 0.05: not told apart from Its base." in notes


def test_without_the_reference_there_are_no_differences(plan: TablePlan, tmp_path: Path) -> None:
    results = table_results(plan, [0], {}, tmp_path)
    assert results["differences"] == []
    assert results["notes"] == ["No differences, because no run of the reference Good is finished."]
