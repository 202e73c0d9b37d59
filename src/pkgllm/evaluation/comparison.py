"""Compare runs that were asked the same queries, and test how sure their differences are."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pkgllm.evaluation.metrics import METRICS
from pkgllm.evaluation.significance import holm, permutation_p_values
from pkgllm.evaluation.statistics import bootstrap_ratios
from pkgllm.randomness import stream
from pkgllm.runs.predictions import Predictions, printable

PERMUTATIONS = 10_000
"""Draws of all signs behind each p-value."""

_TUNED = "tuned"
"""The model that a run trained; its other models are what it is measured against."""


def compare_runs(runs: Sequence[Predictions], metrics: Sequence[str]) -> dict[str, Any]:
    """Compare the models of runs on the queries that all of them were asked.

    Each run's tuned model is compared with those of the other runs and with the run's own other
    models; the models of a single run, or of one without a tuned model, are all compared. A model
    other than the tuned one that ranks alike in all runs stands once. Values are micro means. The
    intervals are drawn as in the first run's results, whose values come out equal.

    Args:
        runs: What their models answered, to the same queries.
        metrics: Names of metrics, each once.

    Returns:
        Plain values, ready for JSON: the numbers of ``clients``, ``queries``,
        ``bootstrap_resamples`` and ``permutations``, and ``metrics``;

        - ``runs``: ``name``, ``path`` and ``seed`` of each;
        - ``models``: ``name``, ``model``, ``runs`` and ``failures``, and for each metric ``value``,
          ``low`` and ``high``;
        - ``differences``: ``first`` and ``second``, and for each metric ``difference`` (first minus
          second), ``low``, ``high``, ``p`` and ``p_holm``, corrected over all the differences in
          that metric;
        - ``settings``, the runs that are one but for their seeds: ``runs`` and ``seeds``, and for
          each model that they do not share, and each metric, the ``mean`` and sample ``sd`` of its
          values over the seeds;
        - ``notes``: what a reader must know beside the numbers.

        Both ends of an interval are None where one client stands alone.
    """
    models = _models(runs)
    pairs = [
        (first, second)
        for first, second in combinations(range(len(models)), 2)
        if _are_compared(models[first], models[second], alone=len(runs) == 1)
    ]
    measured = {metric: _measure(metric, runs[0], models, pairs) for metric in metrics}
    return {
        "clients": len(runs[0].asked),
        "queries": sum(len(asked.held_out) for asked in runs[0].asked.values()),
        "bootstrap_resamples": runs[0].resamples,
        "permutations": min(PERMUTATIONS, 2 ** len(runs[0].asked)),
        "metrics": list(metrics),
        "runs": [{"name": run.name, "path": printable(run.path), "seed": run.seed} for run in runs],
        "models": [
            {
                "name": model.name,
                "model": model.model,
                "runs": [run.name for run in model.runs],
                "failures": model.runs[0].failures(model.model),
                "metrics": {metric: measured[metric].values[index] for metric in metrics},
            }
            for index, model in enumerate(models)
        ],
        "differences": [
            {
                "first": models[first].name,
                "second": models[second].name,
                "metrics": {metric: measured[metric].differences[index] for metric in metrics},
            }
            for index, (first, second) in enumerate(pairs)
        ],
        "settings": [
            _over_seeds(members, models, measured)
            for members in _settings(runs)
            if _have_own_seeds(members)
        ],
        "notes": _notes(runs),
    }


@dataclass(frozen=True, slots=True)
class _Model:
    """A model that stands in the tables, once for all the runs in which it is the same."""

    name: str
    model: str
    """Its name in predictions."""
    runs: tuple[Predictions, ...]
    """At least one; all of them hold the same ranks."""

    @property
    def is_own(self) -> bool:
        """Whether a run is about this model."""
        return self.model == _TUNED or any(_TUNED not in run.answers for run in self.runs)


@dataclass(frozen=True, slots=True)
class _Measured:
    """What stands in the results under one metric."""

    values: Sequence[Mapping[str, Any]]
    """For each model."""
    differences: Sequence[Mapping[str, Any]]
    """For each pair."""


def _models(runs: Sequence[Predictions]) -> list[_Model]:
    first = runs[0].answers
    shared = [
        model
        for model in first
        if model != _TUNED and all(run.answers.get(model) == first[model] for run in runs)
    ]
    if len(runs) == 1:
        return [_Model(model, model, tuple(runs)) for model in first]
    by_run = [
        _Model(f"{run.name}: {model}", model, (run,))
        for run in runs
        for model in run.answers
        if model not in shared
    ]
    return by_run + [_Model(model, model, tuple(runs)) for model in shared]


def _are_compared(first: _Model, second: _Model, *, alone: bool) -> bool:
    of_one_run = any(run in second.runs for run in first.runs)
    return (
        alone
        or (first.is_own and second.is_own)
        or (of_one_run and (first.is_own or second.is_own))
    )


def _measure(
    metric: str, asked: Predictions, models: Sequence[_Model], pairs: Sequence[tuple[int, int]]
) -> _Measured:
    of_models = [(model.runs[0], model.model) for model in models]
    sums, counts = client_terms(metric, asked, of_models)
    seed = asked.seed
    ratios = bootstrap_ratios(
        sums,
        counts,
        resamples=asked.resamples,
        generator=stream(seed, "bootstrap"),
    )
    # The counts are alike for all models, so no sign changes what the sums are divided by.
    p_values = permutation_p_values(
        sums[:, [first for first, _ in pairs]] - sums[:, [second for _, second in pairs]],
        resamples=PERMUTATIONS,
        generator=stream(seed, "permutation"),
    )
    values = [ratios.estimate(index) for index in range(len(models))]
    differences = [ratios.difference(first, second) for first, second in pairs]
    return _Measured(
        [asdict(value) for value in values],
        [
            {
                "difference": difference.value,
                "low": difference.low,
                "high": difference.high,
                "p": float(p),
                "p_holm": float(corrected),
            }
            for difference, p, corrected in zip(differences, p_values, holm(p_values), strict=True)
        ],
    )


def client_terms(
    metric: str, asked: Predictions, models: Sequence[tuple[Predictions, str]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum both terms of a metric over each client's queries.

    Args:
        metric: Its name.
        asked: What was asked.
        models: Runs that were asked that, each with the name of one of its models.

    Returns:
        Twice the shape ``(clients, models)``; the second, lower terms are alike for all models.
    """
    sizes = np.array([len(query.held_out) for query in asked.asked.values()])
    candidates = np.array([query.candidates for query in asked.asked.values()])
    # An item is ranked among the candidates without the client's other held-out ones.
    num_ranked = np.repeat(candidates - sizes + 1, sizes)
    starts = np.cumsum(sizes) - sizes
    terms = [METRICS[metric](run.ranks(model, asked.asked), num_ranked) for run, model in models]
    return (
        np.add.reduceat(np.column_stack([term.upper for term in terms]), starts),
        np.add.reduceat(np.column_stack([term.lower for term in terms]), starts),
    )


def _settings(runs: Sequence[Predictions]) -> list[list[Predictions]]:
    """Return the runs that are one but for their seeds, where there are several."""
    runs_by_setting: dict[str, list[Predictions]] = {}
    for run in runs:
        runs_by_setting.setdefault(run.setting, []).append(run)
    return [members for members in runs_by_setting.values() if len(members) > 1]


def _have_own_seeds(members: Sequence[Predictions]) -> bool:
    return len({run.seed for run in members}) == len(members)


def _over_seeds(
    members: Sequence[Predictions], models: Sequence[_Model], measured: Mapping[str, _Measured]
) -> dict[str, Any]:
    spread = {}
    for name in members[0].answers:
        indices = [
            index
            for index, model in enumerate(models)
            if model.model == name and model.runs[0] in members
        ]
        # A model that the runs share stands once, and says nothing about seeds.
        if len(indices) == len(members):
            spread[name] = {
                metric: _mean_and_sd([of_metric.values[index]["value"] for index in indices])
                for metric, of_metric in measured.items()
            }
    return {
        "runs": [run.name for run in members],
        "seeds": [run.seed for run in members],
        "models": spread,
    }


def _mean_and_sd(values: Sequence[float]) -> dict[str, float]:
    return {"mean": float(np.mean(values)), "sd": float(np.std(values, ddof=1))}


def _notes(runs: Sequence[Predictions]) -> list[str]:
    notes = [
        f"{', '.join(run.name for run in members)}: one setting, but not each with a seed of its "
        "own, so no mean over seeds is given."
        for members in _settings(runs)
        if not _have_own_seeds(members)
    ]
    num_mixed = sum(
        len({run.seen_in_training[client] for run in runs}) > 1 for client in runs[0].asked
    )
    if num_mixed:
        notes.append(
            f"{num_mixed} of the {len(runs[0].asked)} clients were seen in training by some of the "
            "runs and not by others."
        )
    names = dict.fromkeys(name for run in runs for name in run.digests if name != "split")
    differing = [
        name for name in names if len({r.digests.get(name) for r in _readers(runs, name)}) > 1
    ]
    if differing:
        notes.append(f"The runs did not all read the same: {', '.join(differing)}.")
    return notes + privacy_notes((run.name, run) for run in runs)


def _readers(runs: Sequence[Predictions], name: str) -> list[Predictions]:
    """Return the runs that could have read something: an embedding has no base model to read."""
    return [run for run in runs if name in run.digests or not name.startswith("base_model")]


def privacy_notes(runs: Iterable[tuple[str, Predictions]]) -> list[str]:
    """Return the privacy of runs, for a table in which they stand beside each other.

    Args:
        runs: Each with its name in the table, which several seeds may share; where their privacy
            differs, all are listed.
    """
    names_by_statement: dict[str, list[str]] = {}
    for name, run in runs:
        names_by_statement.setdefault(run.privacy, []).append(name)
    if len(names_by_statement) == 1:
        return list(names_by_statement)
    return [
        f"{', '.join(dict.fromkeys(names))}: {statement}"
        for statement, names in names_by_statement.items()
    ]
