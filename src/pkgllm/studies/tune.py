"""Choose the settings of a table's rows on the validation part, each with the same budget."""

import numpy as np

from pkgllm.baselines.likes import TrainingLikes
from pkgllm.errors import RunError
from pkgllm.evaluation.metrics import reciprocal_rank
from pkgllm.evaluation.protocol import evaluate
from pkgllm.pipeline.build import make_queries, populate, read_corpus
from pkgllm.runs.folder import RunFolder
from pkgllm.runs.records import read_object
from pkgllm.studies.plan import PlannedRun
from pkgllm.studies.run import Runner
from pkgllm.studies.table import Row
from pkgllm.studies.table_plan import TablePlan, Tuning

TUNING = "tuning.json"
"""The validation MRR of every setting, for each row with a grid, in the folder of a table."""


def trials(plan: TablePlan) -> tuple[PlannedRun, ...]:
    """Return the runs that try settings; a row without a run of its own needs none."""
    return tuple(
        plan.trial(row, label) for row in plan.table.rows if row.of is None for label in row.grid
    )


def tune(plan: TablePlan, runner: Runner) -> Tuning:
    """Try every setting of every row on the validation part, with seed 0, and write the values.

    Nothing of the test part is read. What was tried already is not tried again.

    Raises:
        RunError: If a setting could not be tried, so that the rows would not have equal budgets.
        StoppedError: If a stop was asked for.
    """
    runs = trials(plan)
    runner.run(runs)
    if failed := runner.failed(runs):
        reasons = "; ".join(f"{place}: {reason}" for place, reason in failed.items())
        raise RunError(f"{len(failed)} settings could not be tried: {reasons}")
    tuning = {
        row.name: {label: _validation_mrr(plan, row, label, runner) for label in row.grid}
        for row in plan.table.rows
        if row.grid
    }
    RunFolder(runner.output).write_json(TUNING, tuning)
    return tuning


def _validation_mrr(plan: TablePlan, row: Row, label: str, runner: Runner) -> float:
    trial = plan.trial(row, label)
    if row.of is None:
        results = read_object(runner.output / trial.place / "results.json")
        return float(results["models"][row.model]["mrr"]["value"])
    # A model that learns from the training likes alone needs no run.
    config = trial.config
    population = populate(config, read_corpus(config))
    catalogue = population.corpus.catalogue
    likes = TrainingLikes(catalogue, population.liked_in_training())
    (choice,) = (choice for choice in config.evaluation.baselines if choice.name == row.model)
    scorer = choice.fit(likes, seed=config.seed)
    queries = make_queries(config, population)
    (ranked,) = evaluate([scorer], queries, catalogue, resamples=1, seed=0).ranked.values()
    ranks = np.concatenate([client.ranks.realistic for client in ranked])
    return float(reciprocal_rank(ranks).mean())
