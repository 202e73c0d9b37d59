"""What the rows of a table found: values, differences from the reference, what differs and why."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pkgllm.config.results_table import Row
from pkgllm.config.table_plan import TablePlan
from pkgllm.evaluation.results import TOP_K
from pkgllm.evaluation.statistics import bootstrap_ratios
from pkgllm.evaluation.top_lists import top_list_terms
from pkgllm.kge.participation import below_isolation
from pkgllm.pipeline.evaluation.comparison import client_terms
from pkgllm.pipeline.evaluation.predictions import Predictions, privacy_notes, read_predictions
from pkgllm.pipeline.run_record import read_json
from pkgllm.randomness import stream
from pkgllm.runs.folder import RunFolder
from pkgllm.studies.comparison import RankedRuns, against_reference
from pkgllm.studies.tables.rows import row_folder
from pkgllm.studies.tables.tuning import Tuned

RANK_METRICS = ("hits@1", "hits@3", "hits@10", "mrr")
LIST_METRICS = (f"precision@{TOP_K}", f"recall@{TOP_K}")
TABLE_METRICS = (*LIST_METRICS, *RANK_METRICS)
TESTED_METRICS = ("hits@10", "mrr")
"""In which the reference is compared with every other row."""

BEYOND = ("coverage", "tail_coverage", "tail_share", "novelty", "diversity")
"""What is told of the rows' lists whether or not the items are liked."""

_SURE = 0.05


@dataclass(frozen=True, slots=True)
class _Finished:
    """A row's finished runs, by seed."""

    row: Row
    runs: Mapping[int, Predictions]
    results: Mapping[int, Mapping[str, Any]]


def table_results(
    plan: TablePlan,
    tuned: Tuned,
    seeds: Sequence[int],
    failures: Mapping[str, str],
    output: Path,
) -> dict[str, Any]:
    """Return what is known of every row, ready for JSON.

    Args:
        plan: The table.
        tuned: How the rows' settings were chosen.
        seeds: Of the runs.
        failures: Why runs failed, by their place below ``output``.
        output: Folder of the table.

    Returns:
        - ``table``, ``title``, ``reference``, ``published_in``, ``seeds``, and of the first seed
          ``clients`` and ``queries``;
        - ``rows``: ``name``, ``config``, ``of``, ``model``, ``settings``, the finished ``seeds``,
          ``metrics`` (each ``value``, the mean over seeds, ``low``, ``high`` and ``sd``, which is
          None for one seed), ``beyond`` (means over seeds), ``failures`` (clients without a score),
          ``tried`` (validation MRR by setting), ``set_when_tuning``, ``winner``, ``published``,
          ``differs``, ``reason``;
        - ``differences``, as :func:`~pkgllm.studies.comparison.against_reference` makes
          them, each row minus the reference;
        - ``notes``: what a reader must know beside the numbers.

    Raises:
        RunError: If a file of a finished run is damaged.
    """
    found = {row.name: _finished(row, seeds, output) for row in plan.table.rows}
    differences, notes = _differences(plan, found, output)
    asked = next((f.runs[seed] for f in found.values() for seed in f.runs), None)
    return {
        "table": plan.name,
        "title": plan.table.title,
        "reference": plan.table.reference,
        "published_in": plan.table.published_in,
        "seeds": list(seeds),
        "clients": len(asked.asked) if asked else 0,
        "queries": sum(len(a.held_out) for a in asked.asked.values()) if asked else 0,
        "rows": [
            _told(plan, found[row.name], tuned, _reason(row, seeds, failures))
            for row in plan.table.rows
        ],
        "differences": differences,
        "notes": [
            *notes,
            *_isolation_notes(plan, tuned),
            *_goal_notes(plan, differences),
            *_privacy_notes(found.values()),
        ],
    }


def _reason(row: Row, seeds: Sequence[int], failures: Mapping[str, str]) -> str:
    places = (str(row_folder(row, seed)) for seed in seeds)
    return next((failures[place] for place in places if place in failures), "not run yet")


def _finished(row: Row, seeds: Sequence[int], output: Path) -> _Finished:
    paths = {seed: output / row_folder(row, seed) for seed in seeds}
    done = {seed: path for seed, path in paths.items() if RunFolder(path).results.exists()}
    return _Finished(
        row,
        {seed: read_predictions(path, row.name) for seed, path in done.items()},
        {seed: read_json(RunFolder(path).results) for seed, path in done.items()},
    )


def _told(plan: TablePlan, found: _Finished, tuned: Tuned, reason: str) -> dict[str, Any]:
    row = found.row
    owner = row if row.of is None else plan.table.row(row.of)
    return {
        "name": row.name,
        "config": owner.config,
        "of": row.of,
        "model": row.model,
        "settings": list(row.set),
        "seeds": list(found.runs),
        "metrics": _metrics(found) if found.runs else None,
        "beyond": _beyond(found) if found.runs else None,
        "failures": sum(run.failures(row.model) for run in found.runs.values()),
        "tried": dict(tuned.validation.get(row.name, {})),
        "set_when_tuning": list(row.set_when_tuning),
        "grid": {label: list(texts) for label, texts in row.grid.items()},
        "winner": tuned.winner(row),
        "published": dict(row.published),
        "differs": row.differs,
        "reason": None if found.runs else reason,
    }


def _metrics(found: _Finished) -> dict[str, Any]:
    """Return each metric's mean over seeds, with the interval over clients and the SD over seeds.

    For the interval a client's terms are summed over its queries of all seeds, so that its queries
    stay together in every resample.
    """
    by_seed = {seed: _terms(run, found.row.model) for seed, run in found.runs.items()}
    pooled: dict[str, NDArray[np.float64]] = {}
    for seed, run in found.runs.items():
        for client, row in zip(run.asked, by_seed[seed], strict=True):
            pooled[client] = pooled[client] + row if client in pooled else row
    stacked = np.stack(list(pooled.values()))
    config = next(iter(found.runs.values())).config
    ratios = bootstrap_ratios(
        stacked[:, 0],
        stacked[:, 1],
        resamples=config.evaluation.bootstrap_resamples,
        generator=stream(config.seed, "bootstrap"),
    )
    values = np.stack([t[:, 0].sum(axis=0) / t[:, 1].sum(axis=0) for t in by_seed.values()])
    told = {}
    for column, metric in enumerate(TABLE_METRICS):
        estimate = ratios.estimate(column)
        told[metric] = {
            "value": float(values[:, column].mean()),
            "low": estimate.low,
            "high": estimate.high,
            "sd": float(values[:, column].std(ddof=1)) if len(values) > 1 else None,
        }
    return told


def _terms(run: Predictions, model: str) -> NDArray[np.float64]:
    """Return both terms of every metric; shape ``(clients, 2, metrics)``."""
    answers = run.answers[model]
    hits, listed, gold = top_list_terms(
        [answers[client].top for client in run.asked],
        [asked.held_out for asked in run.asked.values()],
        k=TOP_K,
    )
    ranked = [client_terms(metric, run, [(run, model)]) for metric in RANK_METRICS]
    upper = np.column_stack([hits, hits, *(sums for sums, _ in ranked)])
    lower = np.column_stack([listed, gold, *(counts for _, counts in ranked)])
    return np.stack([upper, lower], axis=1)


def _beyond(found: _Finished) -> dict[str, float | None]:
    of_seeds = [results["beyond_accuracy"][found.row.model] for results in found.results.values()]
    told: dict[str, float | None] = {}
    for name in BEYOND:
        values = [measures[name] for measures in of_seeds if measures[name] is not None]
        told[name] = float(np.mean(values)) if values else None
    return told


def _differences(
    plan: TablePlan, found: Mapping[str, _Finished], output: Path
) -> tuple[list[dict[str, Any]], list[str]]:
    ranked = {
        name: RankedRuns(
            {seed: output / row_folder(of_row.row, seed) for seed in of_row.runs}, of_row.row.model
        )
        for name, of_row in found.items()
        if of_row.runs
    }
    reference = ranked.pop(plan.table.reference, None)
    if reference is None:
        return [], [f"No differences, because {plan.table.reference} is not finished."]
    return against_reference(reference, ranked, metrics=TESTED_METRICS)


def _isolation_notes(plan: TablePlan, tuned: Tuned) -> Iterator[str]:
    """Yield a flag for each federated row that is below its clients' own models on validation."""
    for row in plan.table.rows:
        if row.isolated is None:
            continue
        best = [tuned.validation.get(name) for name in (row.name, row.isolated)]
        if all(best):
            federated, alone = ({"mrr": max(found.values())} for found in best if found)
            remark = below_isolation(federated, alone)
            if remark:
                yield f"Flagged: {row.name} is {remark} ({row.isolated}); its exchange does harm."


def _privacy_notes(found: Iterable[_Finished]) -> list[str]:
    """Return what the runs promise, each under the name of the row that owns it."""
    return privacy_notes(
        (of_row.row.name, run)
        for of_row in found
        if of_row.row.of is None
        for run in of_row.runs.values()
    )


def _goal_notes(plan: TablePlan, differences: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield which rows the reference is surely above and surely below, in each tested metric."""
    for metric in TESTED_METRICS:
        sides: dict[str, list[str]] = {"above": [], "below": [], "not told apart from": []}
        for row in differences:
            found = row["metrics"][metric]
            # Differences are of the row minus the reference.
            side = "above" if found["difference"] < 0 else "below"
            sides[side if found["p_holm"] < _SURE else "not told apart from"].append(row["name"])
        told = "; ".join(f"{side} {', '.join(rows)}" for side, rows in sides.items() if rows)
        if told:
            yield f"{plan.table.reference}, {metric}, Holm p below {_SURE:g}: {told}."
