"""How sure a mean over queries is, by the cluster bootstrap, and how clients differ.

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


def ratio(upper: NDArray[np.float64], lower: NDArray[np.float64]) -> NDArray[np.float64]:
    """Divide, where 0 over 0 is 0: with nothing to count, nothing was achieved.

    Args:
        upper: Any shape.
        lower: Not negative; broadcast to the shape of ``upper``.
    """
    return np.divide(upper, lower, out=np.zeros(upper.shape), where=lower > 0)


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
    gives the micro mean; its mean over 1 gives the macro mean. Ratios are those of
    :func:`ratio`.

    Args:
        sums: Shape ``(clients, columns)``.
        counts: What each sum is counted against, 0 or more. Shape ``(clients,)``, or
            ``(clients, columns)`` where columns have counts of their own.
        resamples: How many, at least 1.
        generator: Source of the draws; the same state gives the same resamples.

    Raises:
        ValueError: If there is no client, the shapes do not fit, a count is negative, or a sum
            stands over a count of 0.

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
    num_clients = len(sums)
    if num_clients == 0 or sums.ndim != 2 or counts.shape not in {sums.shape, (num_clients,)}:
        raise ValueError(
            "sums must have shape (clients, columns), counts that or (clients,), with at least one "
            f"client, got {sums.shape} and {counts.shape}"
        )
    if not (counts >= 0).all():
        raise ValueError(f"counts must not be negative, got {counts.min():g}")
    by_column = counts if counts.ndim == 2 else counts[:, None]
    if (sums * (by_column == 0)).any():
        raise ValueError("a sum over a count of 0 must be 0 itself, got another")
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, got {resamples}")
    num_columns = sums.shape[1]
    columns = np.column_stack([sums, by_column])
    totals = columns.sum(axis=0)
    values = ratio(totals[:num_columns], totals[num_columns:])
    if num_clients == 1:
        return RatioBootstrap(values, None)
    resampled = np.empty((resamples, num_columns))
    block = max(1, _BLOCK_COUNTS // num_clients)
    for start in range(0, resamples, block):
        stop = min(start + block, resamples)
        totals = _draw_counts(num_clients, stop - start, generator) @ columns
        resampled[start:stop] = ratio(totals[:, :num_columns], totals[:, num_columns:])
    return RatioBootstrap(values, resampled)


@dataclass(frozen=True, slots=True)
class Spread:
    """How one value for each client is distributed over the clients."""

    p10: float
    """The 10th percentile, interpolated between clients; likewise below."""
    p25: float
    p50: float
    p75: float
    p90: float
    worst_decile: float
    """Mean of the lowest tenth of the clients, rounded up to whole clients."""
    sd: float | None
    """Standard deviation with ``clients - 1`` below; None for a single client."""


def spread_over_clients(values: NDArray[np.float64]) -> Spread:
    """Describe how a value is distributed over clients, shape ``(clients,)``.

    Raises:
        ValueError: If there is no client.

    Example:
        >>> spread_over_clients(np.array([0.0, 1.0, 0.5]))
        Spread(p10=0.1, p25=0.25, p50=0.5, p75=0.75, p90=0.9, worst_decile=0.0, sd=0.5)
    """
    if not len(values):
        raise ValueError("a spread needs at least one client, got none")
    p10, p25, p50, p75, p90 = np.quantile(values, [0.10, 0.25, 0.50, 0.75, 0.90]).tolist()
    lowest = np.sort(values)[: -(-len(values) // 10)]
    sd = float(values.std(ddof=1)) if len(values) > 1 else None
    return Spread(p10, p25, p50, p75, p90, worst_decile=float(lowest.mean()), sd=sd)


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
