"""Metrics of realistic ranks: one value for each query, averaged elsewhere."""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

Metric = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def hits_at_k(ranks: NDArray[np.float64], *, k: int) -> NDArray[np.float64]:
    """Return 1 where the realistic rank is at most ``k``, else 0.

    Its mean is Hits@k, which for one gold item per query is Recall@k.

    Example:
        >>> hits_at_k(np.array([1.0, 3.5]), k=3).tolist()
        [1.0, 0.0]
    """
    return (ranks <= k).astype(np.float64)


def reciprocal_rank(ranks: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return one over the realistic rank; its mean is MRR, over all candidates, never cut.

    Example:
        >>> reciprocal_rank(np.array([1.0, 4.0])).tolist()
        [1.0, 0.25]
    """
    return 1.0 / ranks


METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        "hits@1": partial(hits_at_k, k=1),
        "hits@3": partial(hits_at_k, k=3),
        "hits@10": partial(hits_at_k, k=10),
        "mrr": reciprocal_rank,
    }
)
"""The reported metrics by their name in results."""
