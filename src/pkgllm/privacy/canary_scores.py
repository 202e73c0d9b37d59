"""How well scores tell canaries that took part from those that did not."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq  # type: ignore[import-untyped]  # scipy ships no types
from scipy.stats import beta, nct, rankdata  # type: ignore[import-untyped]  # no types either

from pkgllm.privacy.gaussian import gaussian_epsilon

Scores = NDArray[np.float64]
"""Higher where a canary seems to have taken part. Shape ``(canaries,)``."""


def auroc(with_canary: Scores, without: Scores) -> float:
    """Return the probability that a canary that took part scores higher; a tie counts half.

    Example:
        >>> auroc(np.array([1.0, 2.0]), np.array([0.0, 1.0]))
        0.875
    """
    ranks = rankdata(np.concatenate([with_canary, without]))
    num_in, num_out = len(with_canary), len(without)
    above = ranks[:num_in].sum() - num_in * (num_in + 1) / 2
    return float(above / (num_in * num_out))


def true_positive_rate(
    with_canary: Scores, without: Scores, *, false_positive_rate: float
) -> float:
    """Return the share of those that took part which are recognised, at a rate of false alarms.

    The threshold is the lowest one with no more false alarms than that; there is no
    interpolation, so few canaries give a coarse answer that is never too good.

    Args:
        with_canary: Scores of those that took part.
        without: Scores of those that did not.
        false_positive_rate: At least 0, below 1.
    """
    allowed = int(false_positive_rate * len(without))
    threshold = np.sort(without)[::-1][allowed]
    return float((with_canary > threshold).mean())


def clopper_pearson_epsilon(
    with_canary: Scores, without: Scores, *, delta: float, significance: float
) -> float:
    r"""Return a lower bound on epsilon from both error rates of one threshold.

    The threshold is set on every other canary and judged on the rest, each error rate by its
    exact binomial limit (Clopper and Pearson 1934) at half of the significance. Then
    :math:`\mathrm{TPR} \le e^\epsilon\,\mathrm{FPR} + \delta`, and the same with the two sides
    exchanged (Jagielski et al. 2020, arXiv:2006.07709).

    The limits hold for scores that are independent of each other, as those of orthogonal canaries
    in a Gaussian release or of separate runs are. Canaries of one training run influence each
    other: the bound is then an estimate, and :mod:`pkgllm.privacy.one_run` has the bounds.

    Args:
        with_canary: Scores of those that took part.
        without: Scores of those that did not.
        delta: Of the claim.
        significance: Probability that the result lies above the true epsilon, at most.
    """
    if min(len(with_canary), len(without)) < 2:
        return 0.0
    set_on = with_canary[::2], without[::2]
    candidates = np.unique(np.concatenate(set_on))
    best = candidates[_epsilons(candidates, *set_on, delta, significance).argmax()]
    judged = _epsilons(np.array([best]), with_canary[1::2], without[1::2], delta, significance)
    return float(judged[0])


def _epsilons(
    thresholds: Scores, with_canary: Scores, without: Scores, delta: float, significance: float
) -> NDArray[np.float64]:
    """Return what each threshold's error rates bound epsilon by."""
    missed = np.searchsorted(np.sort(with_canary), thresholds)
    alarmed = len(without) - np.searchsorted(np.sort(without), thresholds)
    misses = _upper_limits(missed, len(with_canary), significance / 2)
    alarms = _upper_limits(alarmed, len(without), significance / 2)
    bounds = np.zeros(len(thresholds))
    for one, other in ((alarms, misses), (misses, alarms)):
        bounds = np.maximum(bounds, np.log(np.maximum(1 - other - delta, one) / one))
    return bounds


def _upper_limits(
    counts: NDArray[np.int64], trials: int, significance: float
) -> NDArray[np.float64]:
    limits = beta.ppf(1 - significance, counts + 1, np.maximum(trials - counts, 1))
    return np.where(counts == trials, 1.0, limits)


def gaussian_fit_epsilon(
    with_canary: Scores, without: Scores, *, delta: float, significance: float
) -> float:
    r"""Return a lower bound on the epsilon of one Gaussian release, from means and spread.

    Where each score is its canary's signal plus the release's noise, the two-sample t statistic has
    a noncentral t distribution whose centre is :math:`\mu\,(1/n_1+1/n_0)^{-1/2}`; the least
    :math:`\mu` that is compatible with it gives epsilon. That is Andrew et al. 2023,
    arXiv:2302.03098, with a confidence limit in place of their estimate. It is the sharpest of the
    bounds here, and the only one that needs the release to be Gaussian.

    Args:
        with_canary: Scores of those that took part, at least 2.
        without: Scores of those that did not, at least 2.
        delta: Of the claim.
        significance: Probability that the result lies above the true epsilon, at most.
    """
    num_in, num_out = len(with_canary), len(without)
    freedom = num_in + num_out - 2
    squares = ((with_canary - with_canary.mean()) ** 2).sum()
    squares += ((without - without.mean()) ** 2).sum()
    scale = math.sqrt(1 / num_in + 1 / num_out)
    spread = math.sqrt(squares / freedom) * scale
    if spread == 0:
        return math.inf if with_canary.mean() > without.mean() else 0.0
    statistic = float(with_canary.mean() - without.mean()) / spread

    def excess(centre: float) -> float:
        return float(nct.sf(statistic, freedom, centre)) - significance

    if statistic <= 0 or excess(0.0) >= 0:
        return 0.0
    return gaussian_epsilon(float(brentq(excess, 0.0, statistic)) * scale, delta)
