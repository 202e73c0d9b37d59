"""Choose the settings of a table's rows on the validation part, each with the same budget."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pkgllm.baselines.likes import TrainingLikes
from pkgllm.config.results_table import Row
from pkgllm.config.table_plan import TablePlan
from pkgllm.errors import RunError, StoppedError
from pkgllm.evaluation.metrics import reciprocal_rank
from pkgllm.evaluation.protocol import evaluate
from pkgllm.pipeline.build import make_queries, populate, read_corpus
from pkgllm.pipeline.evaluation.scorers import baseline
from pkgllm.pipeline.run_record import read_json
from pkgllm.runs.folder import RunFolder
from pkgllm.studies.runs import (
    Doing,
    PlannedRun,
    check_same_settings,
    do_runs,
    failures_of,
)
from pkgllm.studies.tables.rows import TUNING, folder_name

THIS_TABLE = "this table"
"""What messages call it."""

RECORD = "tuning.json"
"""What a tuning found: for each row with a grid the validation MRR of every setting."""


@dataclass(frozen=True, slots=True)
class Tuned:
    """How the settings of a table's rows were chosen."""

    validation: Mapping[str, Mapping[str, float]]
    """MRR on the validation part of every setting that was tried, by row."""

    def winner(self, row: Row) -> str | None:
        """Return the setting of the largest MRR, the first of equal ones; None without a grid."""
        found = self.validation.get(row.name)
        return max(row.grid, key=lambda label: found[label]) if found else None


def recorded(plan: TablePlan) -> Tuned:
    """Return the tuning that stands in the table's own file."""
    return Tuned({row.name: row.validation for row in plan.table.rows if row.validation})


def tune(plan: TablePlan, output: Path, doing: Doing) -> Tuned:
    """Try every setting of every row on the validation part, with seed 0, and write it down.

    Nothing of the test is looked at. What was tried already is not tried again.

    Args:
        plan: The table.
        output: Folder of the table.
        doing: How runs are done.

    Raises:
        ConfigError: If a folder holds a run of another configuration; all keys are named.
        RunError: If a setting could not be tried, so that the rows would not have equal budgets.
        StoppedError: If somebody asked to stop.
    """
    own = [
        (row, label, _place(row, label))
        for row in plan.table.rows
        if row.of is None
        for label in row.grid
    ]
    runs = [PlannedRun(place, plan.tuning(row, label)) for row, label, place in own]
    check_same_settings(runs, output, THIS_TABLE)
    try:
        failures = failures_of(do_runs(runs, output, doing))
    except StoppedError as error:
        raise StoppedError(f"{error}; the same command goes on") from error
    if failures:
        told = "; ".join(f"{place}: {reason}" for place, reason in failures.items())
        raise RunError(f"{len(failures)} settings could not be tried: {told}")
    found: dict[str, dict[str, float]] = {}
    for row, label, place in own:
        results = read_json(output / place / "results.json")
        found.setdefault(row.name, {})[label] = results["models"][row.model]["mrr"]["value"]
    for row in plan.table.rows:
        if row.of is not None and row.grid:
            found[row.name] = {label: _baseline_mrr(plan, row, label) for label in row.grid}
    RunFolder(output).write_json(RECORD, found)
    return Tuned(found)


def _place(row: Row, label: str) -> str:
    return str(Path(TUNING) / folder_name(row.name) / folder_name(label))


def _baseline_mrr(plan: TablePlan, row: Row, label: str) -> float:
    """Return the MRR of a model that learns from the training likes alone, so without a run."""
    config = plan.tuning(row, label)
    population = populate(config, read_corpus(config))
    catalogue = population.corpus.catalogue
    likes = TrainingLikes(catalogue, population.liked_in_training())
    scorer = baseline(row.model, config.evaluation.baselines, likes, config.seed)
    queries = make_queries(config, population)
    (ranked,) = evaluate([scorer], queries, catalogue, resamples=1, seed=0).ranked.values()
    ranks = np.concatenate([client.ranks.realistic for client in ranked])
    return float(reciprocal_rank(ranks).mean())
