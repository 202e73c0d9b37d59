"""Lower bounds on epsilon from a single run with many canaries.

Each canary takes part by a coin flip of its own. From what is released, an auditor guesses for some
canaries whether they did; the more guesses are right, the less private the mechanism can be.

Sources: Steinke, Nasr and Jagielski 2023, arXiv:2305.08846, theorem 5.2; Mahloujifar, Melis and
Chaudhuri 2024, arXiv:2410.22235, algorithm 3. Both bounds lie far below the true epsilon: with
1000 canaries and epsilon 4.4 the first finds about 1.5. A low bound is no evidence of privacy; a
bound above what was accounted for is evidence of a fault.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri  # type: ignore[import-untyped]  # scipy ships no types
from scipy.stats import binom  # type: ignore[import-untyped]  # scipy ships no types

from pkgllm.privacy.gaussian import gaussian_epsilon

GUESSED_SHARES = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Shares of the canaries that are guessed. All are tried, each at a part of the significance."""

_LARGEST = 64.0
"""Epsilons, and mus, are searched up to here."""

Reduction = Callable[[float], float]
"""Inverse of a blow-up function: the least probability, without a canary, of an event that has the
given probability with it."""


@dataclass(frozen=True, slots=True)
class Guesses:
    """How an auditor did.

    Raises:
        ValueError: If there are more correct guesses than guesses, or more guesses than canaries.
    """

    num_canaries: int
    num_guesses: int
    num_correct: int

    def __post_init__(self) -> None:
        if not 0 <= self.num_correct <= self.num_guesses <= self.num_canaries:
            raise ValueError(
                "correct guesses, guesses and canaries must be in rising order, got "
                f"{self.num_correct}, {self.num_guesses} and {self.num_canaries}"
            )


def guess(scores: NDArray[np.float64], included: NDArray[np.bool_], num_guesses: int) -> Guesses:
    """Guess that the canaries of highest score took part and those of lowest score did not.

    Args:
        scores: Higher where a canary seems to have taken part. Shape ``(canaries,)``.
        included: Whether it did. Shape ``(canaries,)``.
        num_guesses: Half of them go to either end; of an odd number one more to the highest.

    Raises:
        ValueError: If a score is NaN, or there are more guesses than canaries.
    """
    if not np.isfinite(scores).all():
        raise ValueError("the canaries' scores must be finite")
    num_low = num_guesses // 2
    order = np.argsort(scores, kind="stable")
    low, high = order[:num_low], order[len(order) - (num_guesses - num_low) :]
    correct = int((~included[low]).sum() + included[high].sum())
    return Guesses(len(scores), num_guesses, correct)


def one_run_p_value(guesses: Guesses, *, epsilon: float, delta: float) -> float:
    r"""Return how likely so many correct guesses are at most, if the mechanism is private.

    With :math:`B \sim \mathrm{Binomial}(r, e^\epsilon/(1+e^\epsilon))`, :math:`v` correct of
    :math:`r` guesses and :math:`m` canaries,

    .. math:: P[B \ge v] + 2m\delta\max_{1\le i\le v}\frac{P[v > B \ge v-i]}{i}

    Args:
        guesses: How the auditor did.
        epsilon: Of the claim, 0 or more.
        delta: Of the claim.
    """
    accuracy = 1 / (1 + math.exp(-epsilon))
    right = guesses.num_correct
    plain = float(binom.sf(right - 1, guesses.num_guesses, accuracy))
    if right == 0 or delta == 0:
        return min(plain, 1.0)
    below = binom.pmf(np.arange(right - 1, -1, -1), guesses.num_guesses, accuracy).cumsum()
    alpha = float((below / np.arange(1, right + 1)).max())
    return min(plain + 2 * guesses.num_canaries * delta * alpha, 1.0)


def one_run_epsilon(guesses: Guesses, *, delta: float, significance: float) -> float:
    """Return the largest epsilon that the guesses rule out; 0 if they rule out none.

    Args:
        guesses: How the auditor did.
        delta: Of the claim.
        significance: Probability of ruling out what is true, at most.

    Example:
        >>> perfect = Guesses(num_canaries=10, num_guesses=10, num_correct=10)
        >>> round(one_run_epsilon(perfect, delta=0.0, significance=0.05), 3)
        1.052
    """
    return _largest_ruled_out(
        lambda epsilon: one_run_p_value(guesses, epsilon=epsilon, delta=delta) < significance
    )


def gaussian_reduction(mu: float) -> Reduction:
    """Return that of the Gaussian mechanism with noise multiplier ``1 / mu``."""
    return lambda probability: float(ndtr(ndtri(probability) - mu))


def approximate_reduction(epsilon: float, delta: float) -> Reduction:
    """Return that of everything that is (epsilon, delta)-private."""
    return lambda probability: max(
        (probability - delta) * math.exp(-epsilon),
        1 - delta - (1 - probability) * math.exp(epsilon),
        0.0,
    )


def f_dp_rules_out(guesses: Guesses, reduction: Reduction, significance: float) -> bool:
    """Return whether the guesses rule out a mechanism of this trade-off function.

    Args:
        guesses: How the auditor did.
        reduction: Of the claim.
        significance: Probability of ruling out what is true, at most.
    """
    total, right = guesses.num_guesses, guesses.num_correct
    # Masses of runs, per canary, that have i correct guesses or more: right and wrong ones.
    correct = significance * right / guesses.num_canaries
    wrong = significance * (total - right) / guesses.num_canaries
    for count in range(right - 1, -1, -1):
        needed = max(wrong, reduction(correct))
        if needed == wrong:
            break
        correct = min(correct + count / (total - count) * (needed - wrong), 1.0)
        wrong = needed
    return correct + wrong > total / guesses.num_canaries


def f_dp_gaussian_epsilon(guesses: Guesses, *, delta: float, significance: float) -> float:
    """Return the epsilon of the largest mu that the guesses rule out, for one Gaussian release."""
    mu = _largest_ruled_out(
        lambda mu: f_dp_rules_out(guesses, gaussian_reduction(mu), significance)
    )
    return gaussian_epsilon(mu, delta)


def f_dp_epsilon(guesses: Guesses, *, delta: float, significance: float) -> float:
    """Return the largest epsilon that the guesses rule out, whatever the mechanism is."""
    return _largest_ruled_out(
        lambda epsilon: f_dp_rules_out(guesses, approximate_reduction(epsilon, delta), significance)
    )


Bound = Callable[..., float]


def best_bound(
    bound: Bound,
    scores: NDArray[np.float64],
    included: NDArray[np.bool_],
    *,
    delta: float,
    significance: float,
    shares: Sequence[float] = GUESSED_SHARES,
) -> float:
    """Return the best of a bound over several numbers of guesses, at the significance of all.

    Args:
        bound: One of the functions above.
        scores: Higher where a canary seems to have taken part. Shape ``(canaries,)``.
        included: Whether it did, by a fair coin each. Shape ``(canaries,)``.
        delta: Of the claim.
        significance: Probability that the result lies above the true epsilon, at most.
        shares: Shares of the canaries to guess.
    """
    counts = {max(1, round(share * len(scores))) for share in shares}
    return max(
        bound(guess(scores, included, count), delta=delta, significance=significance / len(counts))
        for count in counts
    )


def _largest_ruled_out(ruled_out: Callable[[float], bool]) -> float:
    """Return where an answer that is first yes turns to no, by halving; 0 if it is never yes."""
    low, high = 0.0, _LARGEST
    if not ruled_out(low):
        return 0.0
    if ruled_out(high):
        return high
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if ruled_out(middle) else (low, middle)
    return low
