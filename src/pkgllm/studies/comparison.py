"""Test the points of a study against one of them, over all seeds at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pkgllm.errors import RunError
from pkgllm.evaluation.significance import holm, permutation_p_values
from pkgllm.evaluation.statistics import bootstrap_ratios
from pkgllm.pipeline.evaluation.comparison import PERMUTATIONS, client_terms
from pkgllm.pipeline.evaluation.predictions import (
    Predictions,
    check_same_queries,
    read_predictions,
)
from pkgllm.randomness import stream


@dataclass(frozen=True, slots=True)
class RankedRuns:
    """Finished runs of a point, and which of their models is meant."""

    paths: Mapping[int, Path]
    """Run folders, by seed."""
    model: str


_Found = tuple[Predictions, str]
"""A run and one of its models."""

_Pairs = Sequence[tuple[_Found, _Found]]


def against_reference(
    reference: RankedRuns, points: Mapping[str, RankedRuns], *, metrics: Sequence[str]
) -> tuple[list[dict[str, Any]], list[str]]:
    """Test whether points differ from a reference, where they were asked the same.

    A point's runs are paired with those of the reference by seed. A client's difference is summed
    over its queries of all these pairs, so that it changes sides as one, in the permutation test as
    in the cluster bootstrap.

    Args:
        reference: The runs that others are tested against.
        points: Those of every other point, by its name.
        metrics: Names of metrics.

    Returns:
        For every point that can be tested ``name``, ``seeds``, ``clients`` and for each metric
        ``difference`` (point minus reference, micro means), ``low``, ``high``, ``p``, and
        ``p_holm``, corrected over the points; and a note for every other one.
    """
    tested: list[dict[str, Any]] = []
    notes: list[str] = []
    for name, runs in points.items():
        seeds = [seed for seed in reference.paths if seed in runs.paths]
        if not seeds:
            notes.append(f"{name}: no difference, because no seed is finished here and there.")
            continue
        try:
            pairs = [_pair(runs, reference, seed) for seed in seeds]
        except RunError as error:
            notes.append(f"{name}: no difference: {error}.")
            continue
        found = {metric: _difference(metric, pairs) for metric in metrics}
        clients = len({client for _, (there, _) in pairs for client in there.asked})
        tested.append({"name": name, "seeds": seeds, "clients": clients, "metrics": found})
    for metric in metrics:
        p_values = np.array([point["metrics"][metric]["p"] for point in tested])
        for point, corrected in zip(tested, holm(p_values), strict=True):
            point["metrics"][metric]["p_holm"] = float(corrected)
    return tested, notes


def _pair(runs: RankedRuns, reference: RankedRuns, seed: int) -> tuple[_Found, _Found]:
    here, there = (read_predictions(r.paths[seed], r.paths[seed].name) for r in (runs, reference))
    check_same_queries(there, here)
    for found, model in ((here, runs.model), (there, reference.model)):
        if model not in found.answers:
            raise RunError(f"{found.path}: does not rank {model}")
    return (here, runs.model), (there, reference.model)


def _difference(metric: str, pairs: _Pairs) -> dict[str, Any]:
    sums, counts = _summed(metric, pairs)
    config = pairs[0][1][0].config
    ratios = bootstrap_ratios(
        sums,
        counts,
        resamples=config.evaluation.bootstrap_resamples,
        generator=stream(config.seed, "bootstrap"),
    )
    (p,) = permutation_p_values(
        sums[:, :1] - sums[:, 1:],
        resamples=PERMUTATIONS,
        generator=stream(config.seed, "permutation"),
    )
    found = ratios.difference(0, 1)
    return {"difference": found.value, "low": found.low, "high": found.high, "p": float(p)}


def _summed(metric: str, pairs: _Pairs) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum both terms of a metric over each client's queries in all pairs."""
    rows: dict[str, NDArray[np.float64]] = {}
    for here, there in pairs:
        asked = there[0]
        sums, counts = client_terms(metric, asked, [here, there])
        for client, row in zip(asked.asked, np.stack([sums, counts], axis=1), strict=True):
            rows[client] = rows[client] + row if client in rows else row
    summed = np.stack(list(rows.values()))
    return summed[:, 0], summed[:, 1]
