"""Whether a difference between two models could be chance: paired permutation tests, corrected.

The unit is the client, as for the intervals: the queries of one client depend on each other, so
they change sides together.
"""

import numpy as np
from numpy.typing import NDArray

_BLOCK_SIGNS = 4_000_000
"""Signs held at once; 8 bytes each."""

_ROUNDING = 1e-12
"""Sums that differ by less, relative to the sum of all magnitudes, count as equal."""


def permutation_p_values(
    differences: NDArray[np.float64], *, resamples: int, generator: np.random.Generator
) -> NDArray[np.float64]:
    r"""Test, for each column, whether the clients' paired differences are centred on 0; two-sided.

    If two models do equally well, each client's difference :math:`d_c` is as likely with the other
    sign. The statistic is :math:`T = |\sum_c d_c|`, and with signs :math:`s_c` drawn afresh each
    time

    .. math:: p = \frac{1 + \#\{|\sum_c s_c d_c| \ge T\}}{1 + \text{resamples}}

    Where the clients are so few that all their signs, ``2 ** clients``, are no more than the
    resamples, each of them is taken once and p is their share. With a client's sum over its queries
    as :math:`d_c`, T is the micro mean difference times the number of queries, which no sign
    changes; with its mean over them, T is the macro mean difference times the number of clients.

    Source: Fisher 1935, "The Design of Experiments", section 21; the 1 in both places after Phipson
    and Smyth 2010, "Permutation p-values should never be zero", doi:10.2202/1544-6115.1585.

    Args:
        differences: First model minus second. Shape ``(clients, comparisons)``.
        resamples: Draws of all signs, at least 1; the smallest p is 1 over one more.
        generator: Source of the signs, which all columns share; not used where all are taken.

    Returns:
        Shape ``(comparisons,)``.

    Raises:
        ValueError: If there is no client, the shape does not fit, a difference is no finite number,
            or there are no resamples.

    Example:
        Three clients gain and none loses: 2 of the 8 ways to set their signs are that extreme.

        >>> gains = np.array([[0.5], [1.0], [0.25]])
        >>> generator = np.random.default_rng(0)
        >>> permutation_p_values(gains, resamples=1000, generator=generator).tolist()
        [0.25]
    """
    if differences.ndim != 2 or not len(differences):
        raise ValueError(
            "differences must have shape (clients, comparisons) with at least one client, got "
            f"{differences.shape}"
        )
    if not np.isfinite(differences).all():
        raise ValueError("differences must be finite numbers, got others")
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, got {resamples}")
    num_clients, num_comparisons = differences.shape
    # One statistic summed in another order may come out a little smaller than itself.
    slack = _ROUNDING * np.abs(differences).sum(axis=0)
    observed = np.abs(differences.sum(axis=0)) - slack
    take_all = 2**num_clients <= resamples
    total = 2**num_clients if take_all else resamples
    num_extreme = np.zeros(num_comparisons, dtype=np.int64)
    block = max(1, _BLOCK_SIGNS // num_clients)
    for start in range(0, total, block):
        stop = min(start + block, total)
        if take_all:
            flips = np.arange(start, stop)[:, None] >> np.arange(num_clients) & 1
        else:
            flips = generator.integers(2, size=(stop - start, num_clients))
        sums = (1.0 - 2.0 * flips) @ differences
        num_extreme += np.count_nonzero(np.abs(sums) >= observed, axis=0)
    return num_extreme / total if take_all else (1 + num_extreme) / (1 + total)


def holm(p_values: NDArray[np.float64]) -> NDArray[np.float64]:
    r"""Correct the p-values of a family of tests, so that rejecting below a level keeps it.

    In ascending order, :math:`\tilde p_{(i)} = \max_{j \le i} \min(1, (m - j + 1)\, p_{(j)})` for
    :math:`m` tests: the chance of any false rejection among them is at most the level, however they
    depend on each other. Source: Holm 1979, "A simple sequentially rejective multiple test
    procedure", Scandinavian Journal of Statistics 6, 65-70.

    Args:
        p_values: Shape ``(tests,)``.

    Returns:
        In the order given. Shape ``(tests,)``.

    Raises:
        ValueError: If the shape does not fit, or a value does not lie in [0, 1].

    Example:
        >>> holm(np.array([0.25, 0.0625, 0.5])).tolist()
        [0.5, 0.1875, 0.5]
    """
    if p_values.ndim != 1:
        raise ValueError(f"p-values must have shape (tests,), got {p_values.shape}")
    if not ((p_values >= 0) & (p_values <= 1)).all():
        raise ValueError(f"p-values must lie in [0, 1], got {p_values.tolist()}")
    order = np.argsort(p_values, kind="stable")
    raised = p_values[order] * np.arange(len(p_values), 0, -1)
    corrected = np.empty_like(p_values)
    corrected[order] = np.minimum(np.maximum.accumulate(raised), 1.0)
    return corrected
