"""The published measure of link prediction: filtered ranks among all entities, on both sides."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from pykeen.evaluation import RankBasedEvaluator

from pkgllm.kge.pykeen_door import Model


def filtered_metrics(
    model: Model,
    triples: NDArray[np.int64],
    known: Sequence[NDArray[np.int64]],
    *,
    batch_size: int = 16,
) -> dict[str, float]:
    """Return mean reciprocal rank and hits of the heads and tails of some triples.

    PyKEEN ranks each among all entities but those that make a known triple; ties give the mean of
    the best and the worst rank. This is for comparison with published figures only;
    recommendations are measured by :mod:`pkgllm.evaluation`.

    Args:
        model: In evaluation mode.
        triples: To rank, shape ``(triples, 3)``.
        known: All triples of all parts.
        batch_size: Triples that are scored together.

    Returns:
        ``mrr``, ``hits_at_1``, ``hits_at_3`` and ``hits_at_10``.
    """
    results = RankBasedEvaluator(filtered=True).evaluate(
        model=model,
        mapped_triples=torch.from_numpy(triples),
        additional_filter_triples=[torch.from_numpy(part) for part in known],
        batch_size=batch_size,
        use_tqdm=False,
    )
    return {
        ours: float(results.get_metric(f"both.realistic.{theirs}"))
        for ours, theirs in (
            ("mrr", "inverse_harmonic_mean_rank"),
            ("hits_at_1", "hits_at_1"),
            ("hits_at_3", "hits_at_3"),
            ("hits_at_10", "hits_at_10"),
        )
    }
