"""How sure a mean over queries is: the cluster bootstrap by client.

The queries of one client depend on each other, so clients are resampled, each with all of its
queries. Source: Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapters 8 and 13.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
_BLOCK_COUNTS = 4_000_000
"""Resample counts held at once; 8 bytes each."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its 95 % percentile interval, or without one where there is no way to tell."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class RatioBootstrap:
    """Ratios of sums over clients, and the same ratios on every resample of the clients.

    All columns share the resamples, so the difference of two columns is a paired comparison.
    """

    values: NDArray[np.float64]
    """Shape ``(columns,)``."""
    resampled: NDArray[np.float64] | None
    """Shape ``(resamples, columns)``; None for a single client, whose resamples are all alike."""

    def estimate(self, column: int) -> Estimate:
        """Return a column's ratio with its interval."""
        samples = None if self.resampled is None else self.resampled[:, column]
        return _estimate(float(self.values[column]), samples)

    def difference(self, first: int, second: int) -> Estimate:
        """Return the first column's ratio minus the second's, with the paired interval."""
        samples = (
            None if self.resampled is None else self.resampled[:, first] - self.resampled[:, second]
        )
        return _estimate(float(self.values[first] - self.values[second]), samples)


def bootstrap_ratios(
    sums: NDArray[np.float64],
    counts: NDArray[np.float64],
    *,
    resamples: int,
    generator: np.random.Generator,
) -> RatioBootstrap:
    r"""Resample clients with replacement and take the ratio of sums each time.

    With :math:`w_c` how often client :math:`c` is drawn, a column's ratio is
    :math:`\sum_c w_c s_c / \sum_c w_c n_c`. A client's sum of a metric over its number of queries
    gives the micro mean; its mean over 1 gives the macro mean.

    Args:
        sums: Shape ``(clients, columns)``.
        counts: Positive. Shape ``(clients,)``.
        resamples: How many, at least 1.
        generator: Source of the draws; the same state gives the same resamples.

    Raises:
        ValueError: If there is no client, the shapes do not fit, or a count is not positive.

    Example:
        >>> ratios = bootstrap_ratios(
        ...     np.array([[1.0], [0.0]]),
        ...     np.array([2.0, 2.0]),
        ...     resamples=100,
        ...     generator=np.random.default_rng(0),
        ... )
        >>> ratios.estimate(0)
        Estimate(value=0.25, low=0.0, high=0.5)
    """
    num_clients = len(counts)
    if num_clients == 0 or sums.ndim != 2 or len(sums) != num_clients:
        raise ValueError(
            "sums and counts must have shapes (clients, columns) and (clients,) with at least one "
            f"client, got {sums.shape} and {counts.shape}"
        )
    if not (counts > 0).all():
        raise ValueError(f"counts must be positive, got {counts.min():g}")
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, got {resamples}")
    values = sums.sum(axis=0) / counts.sum()
    if num_clients == 1:
        return RatioBootstrap(values, None)
    columns = np.column_stack([sums, counts])
    resampled = np.empty((resamples, sums.shape[1]))
    block = max(1, _BLOCK_COUNTS // num_clients)
    for start in range(0, resamples, block):
        stop = min(start + block, resamples)
        totals = _draw_counts(num_clients, stop - start, generator) @ columns
        resampled[start:stop] = totals[:, :-1] / totals[:, -1:]
    return RatioBootstrap(values, resampled)


def _draw_counts(
    num_clients: int, resamples: int, generator: np.random.Generator
) -> NDArray[np.float64]:
    """Return how often each client is drawn, shape ``(resamples, clients)``."""
    drawn = generator.integers(num_clients, size=(resamples, num_clients))
    drawn += np.arange(resamples)[:, None] * num_clients
    counts = np.bincount(drawn.ravel(), minlength=resamples * num_clients)
    return counts.reshape(resamples, num_clients).astype(np.float64)


def _estimate(value: float, samples: NDArray[np.float64] | None) -> Estimate:
    if samples is None:
        return Estimate(value, None, None)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(samples, [tail, 1 - tail])
    return Estimate(value, float(low), float(high))
