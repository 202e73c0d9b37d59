"""Test the lines of a study or a table against one of them, over all seeds at once."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pkgllm.errors import RunError
from pkgllm.evaluation.comparison import PERMUTATIONS, client_terms
from pkgllm.evaluation.significance import holm, permutation_p_values
from pkgllm.evaluation.statistics import bootstrap_ratios
from pkgllm.pipeline.comparison import read_predictions
from pkgllm.randomness import stream
from pkgllm.runs.folder import RunFolder
from pkgllm.runs.predictions import Predictions, check_same_queries


@dataclass(frozen=True, slots=True)
class RankedRuns:
    """A model in the finished runs of a point or a row."""

    paths: Mapping[int, Path]
    """Run folders by seed."""
    model: str


_Pair = tuple[tuple[Predictions, str], tuple[Predictions, str]]
"""Runs of one seed, of the line and of the reference, each with one of its models."""


def finished(path: Path) -> bool:
    """Return whether a run folder holds a run that is finished."""
    return RunFolder(path).results.exists()


def against_reference(
    reference: str, lines: Mapping[str, RankedRuns], *, metrics: Sequence[str]
) -> tuple[list[dict[str, Any]], list[str]]:
    """Test whether lines differ from the reference, where they were asked the same queries.

    A line's runs are paired with those of the reference by seed. A client's difference is summed
    over its queries of all these pairs, so that it changes sign as one, in the permutation test as
    in the cluster bootstrap.

    Returns:
        For every line that can be tested ``name``, ``seeds``, ``clients`` and for each metric
        ``difference`` (line minus reference, micro means), ``low``, ``high``, ``p``, and
        ``p_holm``, corrected over the lines; and a note for every other one.
    """
    base = lines[reference]
    if not base.paths:
        return [], [f"No differences, because no run of the reference {reference} is finished."]
    tested: list[dict[str, Any]] = []
    notes: list[str] = []
    for name, line in lines.items():
        if name == reference or not line.paths:
            continue
        seeds = [seed for seed in base.paths if seed in line.paths]
        if not seeds:
            notes.append(f"{name}: no difference, because no seed is finished here and there.")
            continue
        try:
            pairs = [_pair(line, base, seed) for seed in seeds]
        except RunError as error:
            notes.append(f"{name}: no difference: {error}.")
            continue
        by_metric = {metric: _difference(metric, pairs) for metric in metrics}
        clients = len({client for _, (there, _) in pairs for client in there.asked})
        tested.append({"name": name, "seeds": seeds, "clients": clients, "metrics": by_metric})
    for metric in metrics:
        p_values = np.array([line["metrics"][metric]["p"] for line in tested])
        for line_tested, corrected in zip(tested, holm(p_values), strict=True):
            line_tested["metrics"][metric]["p_holm"] = float(corrected)
    return tested, notes


def sum_by_client(
    runs: Iterable[tuple[Iterable[str], NDArray[np.float64]]],
) -> NDArray[np.float64]:
    """Sum the rows of each client over runs, in the order in which clients first appear."""
    by_client: dict[str, NDArray[np.float64]] = {}
    for clients, rows in runs:
        for client, row in zip(clients, rows, strict=True):
            by_client[client] = by_client[client] + row if client in by_client else row
    return np.stack(list(by_client.values()))


def _pair(line: RankedRuns, base: RankedRuns, seed: int) -> _Pair:
    here, there = (read_predictions(r.paths[seed], r.paths[seed].name) for r in (line, base))
    check_same_queries(there, here)
    for run, model in ((here, line.model), (there, base.model)):
        if model not in run.answers:
            raise RunError(f"{run.path}: does not rank {model}")
    return (here, line.model), (there, base.model)


def _difference(metric: str, pairs: Sequence[_Pair]) -> dict[str, Any]:
    terms = sum_by_client(
        (there.asked, np.stack(client_terms(metric, there, [here, (there, model)]), axis=1))
        for here, (there, model) in pairs
    )
    sums, counts = terms[:, 0], terms[:, 1]
    first = pairs[0][1][0]
    ratios = bootstrap_ratios(
        sums,
        counts,
        resamples=first.resamples,
        generator=stream(first.seed, "bootstrap"),
    )
    (p,) = permutation_p_values(
        sums[:, :1] - sums[:, 1:],
        resamples=PERMUTATIONS,
        generator=stream(first.seed, "permutation"),
    )
    gap = ratios.difference(0, 1)
    return {"difference": gap.value, "low": gap.low, "high": gap.high, "p": float(p)}
