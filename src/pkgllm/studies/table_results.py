"""Sum up the rows of a table: values, differences from the reference, what differs and why."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pkgllm.evaluation.comparison import client_terms, privacy_notes
from pkgllm.evaluation.metrics import top_list_terms
from pkgllm.evaluation.results import TOP_K
from pkgllm.evaluation.statistics import bootstrap_ratios
from pkgllm.pipeline.comparison import read_predictions
from pkgllm.randomness import stream
from pkgllm.report.model_table import model_table_document
from pkgllm.report.to_markdown import markdown
from pkgllm.runs.folder import RunFolder
from pkgllm.runs.predictions import Predictions
from pkgllm.runs.records import read_object
from pkgllm.studies.compare import RankedRuns, against_reference, finished, sum_by_client
from pkgllm.studies.table import Row
from pkgllm.studies.table_plan import TablePlan

RESULTS = "results"
"""Of the files of a table, without their endings."""

RANK_METRICS = ("hits@1", "hits@3", "hits@10", "mrr")
LIST_METRICS = (f"precision@{TOP_K}", f"recall@{TOP_K}")
TABLE_METRICS = (*LIST_METRICS, *RANK_METRICS)
TESTED_METRICS = ("hits@10", "mrr")
"""In which the reference is compared with every other row."""

BEYOND = ("coverage", "tail_coverage", "tail_share", "novelty", "diversity")
"""Measures of the rows' lists that do not depend on whether the items are liked."""

_SIGNIFICANT = 0.05


@dataclass(frozen=True, slots=True)
class _FinishedRow:
    """A row with its finished runs, by seed."""

    row: Row
    paths: Mapping[int, Path]
    runs: Mapping[int, Predictions]
    results: Mapping[int, Mapping[str, Any]]


def write_results(
    plan: TablePlan, seeds: Sequence[int], failures: Mapping[str, str], output: Path
) -> dict[str, Any]:
    """Write the results of a table as ``results.json`` and ``results.md``, and return them."""
    results = table_results(plan, seeds, failures, output)
    folder = RunFolder(output)
    folder.write_json(f"{RESULTS}.json", results)
    folder.write_text(f"{RESULTS}.md", markdown(model_table_document(results)))
    return results


def table_results(
    plan: TablePlan, seeds: Sequence[int], failures: Mapping[str, str], output: Path
) -> dict[str, Any]:
    """Return the results of every row, ready for JSON.

    ``failures`` say why runs failed, by their folder below ``output``.

    Returns:
        - ``table``, ``title``, ``reference``, ``published_in``, ``seeds``, and of the first seed
          ``clients`` and ``queries``;
        - ``rows``: ``name``, ``config``, ``of``, ``model``, ``settings``, the finished ``seeds``,
          ``metrics`` (each ``value``, the mean over seeds, ``low``, ``high`` and ``sd``, which is
          None for one seed), ``beyond`` (means over seeds), ``failures`` (clients without a score),
          ``tried`` (validation MRR by setting), ``set_when_tuning``, ``winner``, ``published``,
          ``differs``, ``reason``;
        - ``differences``, as :func:`~pkgllm.studies.compare.against_reference` makes them, each row
          minus the reference;
        - ``notes``: what a reader must know beside the numbers.

    Raises:
        RunError: If a file of a finished run is damaged.
    """
    rows = [_read(plan, row, seeds, output) for row in plan.table.rows]
    lines = {row.row.name: RankedRuns(row.paths, row.row.model) for row in rows}
    differences, notes = against_reference(plan.table.reference, lines, metrics=TESTED_METRICS)
    asked = next((row.runs[seed] for row in rows for seed in row.runs), None)
    return {
        "table": plan.name,
        "title": plan.table.title,
        "reference": plan.table.reference,
        "published_in": plan.table.published_in,
        "seeds": list(seeds),
        "clients": len(asked.asked) if asked else 0,
        "queries": sum(len(a.held_out) for a in asked.asked.values()) if asked else 0,
        "rows": [_row_results(plan, row, _reason(plan, row.row, seeds, failures)) for row in rows],
        "differences": differences,
        "notes": [
            *notes,
            *_isolation_notes(plan),
            *_reference_notes(plan, differences),
            # Of a run, under the name of the row that owns it.
            *privacy_notes(
                (row.row.name, run)
                for row in rows
                if row.row.of is None
                for run in row.runs.values()
            ),
        ],
    }


def _reason(plan: TablePlan, row: Row, seeds: Sequence[int], failures: Mapping[str, str]) -> str:
    places = (plan.place(row, seed) for seed in seeds)
    return next((failures[place] for place in places if place in failures), "not run yet")


def _read(plan: TablePlan, row: Row, seeds: Sequence[int], output: Path) -> _FinishedRow:
    paths = {seed: output / plan.place(row, seed) for seed in seeds}
    paths = {seed: path for seed, path in paths.items() if finished(path)}
    return _FinishedRow(
        row,
        paths,
        {seed: read_predictions(path, row.name) for seed, path in paths.items()},
        {seed: read_object(RunFolder(path).results) for seed, path in paths.items()},
    )


def _row_results(plan: TablePlan, finished_row: _FinishedRow, reason: str) -> dict[str, Any]:
    row, runs = finished_row.row, finished_row.runs
    return {
        "name": row.name,
        "config": plan.table.owner(row).config,
        "of": row.of,
        "model": row.model,
        "settings": list(row.set),
        "seeds": list(runs),
        "metrics": _metrics(finished_row) if runs else None,
        "beyond": _beyond(finished_row) if runs else None,
        "failures": sum(run.failures(row.model) for run in runs.values()),
        "tried": dict(plan.tuning.get(row.name, {})),
        "set_when_tuning": list(row.set_when_tuning),
        "grid": {label: list(texts) for label, texts in row.grid.items()},
        "winner": plan.winner(row),
        "published": dict(row.published),
        "differs": row.differs,
        "reason": None if runs else reason,
    }


def _metrics(finished_row: _FinishedRow) -> dict[str, Any]:
    """Return each metric's mean over seeds, with the interval over clients and the SD over seeds.

    For the interval a client's terms are summed over its queries of all seeds, so that its queries
    stay together in every resample.
    """
    runs = list(finished_row.runs.values())
    by_seed = [_terms(run, finished_row.row.model) for run in runs]
    summed = sum_by_client((run.asked, terms) for run, terms in zip(runs, by_seed, strict=True))
    ratios = bootstrap_ratios(
        summed[:, 0],
        summed[:, 1],
        resamples=runs[0].resamples,
        generator=stream(runs[0].seed, "bootstrap"),
    )
    values = np.stack([terms[:, 0].sum(axis=0) / terms[:, 1].sum(axis=0) for terms in by_seed])
    metrics = {}
    for column, metric in enumerate(TABLE_METRICS):
        estimate = ratios.estimate(column)
        metrics[metric] = {
            "value": float(values[:, column].mean()),
            "low": estimate.low,
            "high": estimate.high,
            "sd": float(values[:, column].std(ddof=1)) if len(values) > 1 else None,
        }
    return metrics


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


def _beyond(finished_row: _FinishedRow) -> dict[str, float | None]:
    model = finished_row.row.model
    of_seeds = [results["beyond_accuracy"][model] for results in finished_row.results.values()]
    means: dict[str, float | None] = {}
    for name in BEYOND:
        values = [measures[name] for measures in of_seeds if measures[name] is not None]
        means[name] = float(np.mean(values)) if values else None
    return means


def _isolation_notes(plan: TablePlan) -> Iterator[str]:
    """Yield a flag for each federated row that is below its clients' own models on validation."""
    for row in plan.table.rows:
        federated = plan.tuning.get(row.name)
        isolated = None if row.isolated is None else plan.tuning.get(row.isolated)
        if federated and isolated:
            together, alone = max(federated.values()), max(isolated.values())
            if together < alone:
                yield (
                    f"Flagged: {row.name} is below isolation on validation: mrr {together:.4f}, "
                    f"alone {alone:.4f} ({row.isolated}); its exchange does harm."
                )


def _reference_notes(plan: TablePlan, differences: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield which rows the reference is significantly above and below, in each tested metric."""
    for metric in TESTED_METRICS:
        sides: dict[str, list[str]] = {"above": [], "below": [], "not told apart from": []}
        for row in differences:
            measured = row["metrics"][metric]
            # Differences are of the row minus the reference.
            side = "above" if measured["difference"] < 0 else "below"
            sure = measured["p_holm"] < _SIGNIFICANT
            sides[side if sure else "not told apart from"].append(row["name"])
        parts = "; ".join(f"{side} {', '.join(names)}" for side, names in sides.items() if names)
        if parts:
            yield f"{plan.table.reference}, {metric}, Holm p below {_SIGNIFICANT:g}: {parts}."
