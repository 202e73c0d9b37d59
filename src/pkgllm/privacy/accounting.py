"""What mechanisms cost: epsilon for a delta, and the noise that a target epsilon needs.

Two accountants of Opacus do the work. ``prv`` composes the privacy loss numerically (Gopi et al.
2021, arXiv:2106.02848) and is the tighter one; ``rdp`` goes over Rényi divergences (Mironov et al.
2019, arXiv:1908.10530). Both return upper bounds.
"""

import math
import warnings
from collections.abc import Callable, Iterable
from functools import lru_cache

import numpy as np

from pkgllm.errors import PrivacyError
from pkgllm.privacy.mechanisms import (
    Accountant,
    History,
    Mechanism,
    SamplingSchedule,
    fact_mechanism,
    merge,
)

NOISE_TOLERANCE = 1e-3
"""A calibrated noise multiplier is at most this share above the smallest one."""

MAX_NOISE_MULTIPLIER = 1e4
"""Where calibration gives up."""

_MIN_NOISE_MULTIPLIER = 1e-3

_BESIDE = NOISE_TOLERANCE / 3

_GROUP_TRIES = 20

_LEAST_LOG_DELTA = -500.0

_PRV_LIMIT = 100.0
"""Epsilon, by ``rdp``, above which ``prv`` is not asked: its grid grows with epsilon beyond memory,
and no such epsilon protects anybody."""


def epsilon(history: Iterable[Mechanism], *, delta: float, accountant: Accountant = "prv") -> float:
    """Return the epsilon of releases at a delta; an upper bound.

    Where the numerical composition of ``prv`` cannot be done, which is where epsilon is above 100
    or the noise next to nothing, the bound of ``rdp`` stands in for it.

    Args:
        history: All that was released about one unit.
        delta: Probability that the bound of epsilon does not hold, between 0 and 1.
        accountant: What prices it.

    Raises:
        ValueError: If ``delta`` is out of range.

    Example:
        >>> epsilon([], delta=1e-5)
        0.0
        >>> epsilon([Mechanism(0.0, 0.1)], delta=1e-5)
        inf
        >>> round(epsilon([Mechanism(1.0, 0.1, 50)], delta=1e-5), 1)
        5.2
    """
    if not 0 < delta < 1:
        raise ValueError(f"delta must be above 0 and below 1, got {delta}")
    return _epsilon(merge(history), delta, accountant)


def fact_epsilon(
    history: Iterable[Mechanism],
    *,
    max_groups: int,
    delta: float,
    accountant: Accountant = "prv",
) -> float:
    """Return the epsilon of one fact that enters several groups, where an example is one group.

    The smaller of two bounds. The one is that of
    :func:`~pkgllm.privacy.mechanisms.fact_mechanism`. The other is group privacy: what is
    ``(e, d)``-private for one group is, for ``k`` of them,
    ``(k e, d (1 + exp(e) + ... + exp((k - 1) e)))``-private (Vadhan 2017, lemma 7.2.2).

    Args:
        history: All that was released about the groups of one client.
        max_groups: Groups that a fact enters at most.
        delta: As for :func:`epsilon`.
        accountant: What prices it.

    Example:
        >>> releases = [Mechanism(4.0, 0.1, 50)]
        >>> one, two = (fact_epsilon(releases, max_groups=k, delta=1e-5) for k in (1, 2))
        >>> two > 2 * one
        True
    """
    merged = merge(history)
    moved = epsilon(
        [fact_mechanism(m, max_groups) for m in merged], delta=delta, accountant=accountant
    )
    if max_groups == 1 or not math.isfinite(moved):
        return moved
    return min(moved, _group_privacy(merged, max_groups, delta, accountant))


def largest_epsilon(
    histories: Iterable[Iterable[Mechanism]],
    *,
    delta: float,
    accountant: Accountant = "prv",
    max_groups: int = 1,
) -> float:
    """Return the largest epsilon of several histories, pricing as few of them as possible.

    Clients hold disjoint data, so their guarantees do not add up: the worst one is that of all.

    Args:
        histories: One for each client.
        delta: As for :func:`epsilon`.
        accountant: What prices them.
        max_groups: Above 1 for the epsilon of a fact, as for :func:`fact_epsilon`.
    """
    return max(
        (
            fact_epsilon(history, max_groups=max_groups, delta=delta, accountant=accountant)
            for history in _worst(map(merge, histories))
        ),
        default=0.0,
    )


def calibrate_noise(
    target_epsilon: float,
    *,
    delta: float,
    schedules: Iterable[SamplingSchedule],
    accountant: Accountant = "prv",
) -> float:
    """Return the smallest noise multiplier with which no schedule costs more than a target.

    It is computed to within ``NOISE_TOLERANCE``, from above: the returned value itself was priced,
    and holds.

    Args:
        target_epsilon: Epsilon at the end of every schedule, above 0.
        delta: As for :func:`epsilon`.
        schedules: One for each history that a unit may have.
        accountant: What prices them.

    Raises:
        PrivacyError: If no noise reaches it.
        ValueError: If there is no schedule, or the target is not above 0.

    Example:
        >>> noise = calibrate_noise(3.0, delta=1e-5, schedules=[SamplingSchedule(0.1, 50)])
        >>> epsilon([SamplingSchedule(0.1, 50).mechanism(noise)], delta=1e-5) <= 3.0
        True
    """
    planned = tuple(schedules)
    if not planned or target_epsilon <= 0:
        raise ValueError(f"needs a schedule and a target_epsilon above 0, got {target_epsilon}")

    def cost(noise_multiplier: float, by: Accountant) -> float:
        histories = [[schedule.mechanism(noise_multiplier)] for schedule in planned]
        return largest_epsilon(histories, delta=delta, accountant=by)

    # The cheap accountant says where to look.
    start = _smallest_power(lambda noise: cost(noise, "rdp") <= target_epsilon)
    high = _narrow(lambda noise: cost(noise, "rdp"), target_epsilon, start / 2, start)[1]
    if accountant == "rdp" and cost(high, "rdp") <= target_epsilon:
        return high
    while (reached := cost(high, accountant)) > target_epsilon:
        if high == MAX_NOISE_MULTIPLIER:
            raise PrivacyError(
                f"privacy.target_epsilon {target_epsilon:g} cannot be reached at delta {delta:g}: "
                f"by accountant {accountant} even noise_multiplier {high:g} gives epsilon "
                f"{reached:.3g}; raise target_epsilon above that, or lower mode.rounds"
            )
        high = min(1.5 * high, MAX_NOISE_MULTIPLIER)
    low = 0.8 * high
    while low > _MIN_NOISE_MULTIPLIER and cost(low, accountant) <= target_epsilon:
        high, low = low, 0.8 * low
    return _narrow(lambda noise: cost(noise, accountant), target_epsilon, low, high)[1]


def _smallest_power(holds: Callable[[float], bool]) -> float:
    """Return the smallest power of two for which something holds, within the limits."""
    noise = 1.0
    while noise < MAX_NOISE_MULTIPLIER and not holds(noise):
        noise *= 2
    while noise > _MIN_NOISE_MULTIPLIER and holds(noise / 2):
        noise /= 2
    return min(noise, MAX_NOISE_MULTIPLIER)


def _narrow(
    cost: Callable[[float], float], target: float, low: float, high: float
) -> tuple[float, float]:
    """Bring the ends together on which a falling cost is above and not above a target.

    Epsilon is nearly a power of the noise, so a straight line between logarithms hits close; a step
    to just beside the hit brings in one end, and the next step the other.
    """
    cost_low, cost_high, side = cost(low), cost(high), 1
    while high > (1 + NOISE_TOLERANCE) * low:
        guess = math.sqrt(low * high)
        if math.isfinite(cost_low) and cost_low > target > cost_high > 0:
            share = math.log(cost_low / target) / math.log(cost_low / cost_high)
            beside = (high / low) ** (0.02 * side)
            guess = low * (high / low) ** share * min(max(beside, 1 - _BESIDE), 1 + _BESIDE)
            if not low < guess < high:
                guess = math.sqrt(low * high)
        if (reached := cost(guess)) <= target:
            high, cost_high, side = guess, reached, -1
        else:
            low, cost_low, side = guess, reached, 1
    return low, high


@lru_cache(maxsize=1 << 12)
def _group_privacy(
    history: History, max_groups: int, delta: float, accountant: Accountant
) -> float:
    """Look for the delta of one group from which that of all follows; infinite if there is none."""
    log_share = math.log(delta)
    for _ in range(_GROUP_TRIES):
        one = _epsilon(history, math.exp(log_share), accountant)
        # The last term, exp((k - 1) e), is taken out, so that no sum overflows.
        terms = sum(math.exp(-place * one) for place in range(max_groups))
        wanted = math.log(delta) - (max_groups - 1) * one - math.log(terms)
        if log_share <= wanted:
            return max_groups * one
        # A little further than needed, as a smaller delta makes epsilon larger.
        log_share += 1.2 * (wanted - log_share)
        if log_share < _LEAST_LOG_DELTA:
            break
    return math.inf


def _worst(histories: Iterable[History]) -> list[History]:
    """Leave out every history that another one dominates."""
    kept: list[History] = []
    for history in sorted(set(histories), key=_order, reverse=True):
        if not any(_dominates(other, history) for other in kept):
            kept.append(history)
    return kept


def _order(history: History) -> tuple[int, float]:
    """Sort those first that are likely to dominate others."""
    return (
        sum(one.steps for one in history),
        max((m.sampling_probability for m in history), default=0),
    )


def _dominates(one: History, other: History) -> bool:
    return len(one) == len(other) and all(
        left.dominates(right) for left, right in zip(one, other, strict=True)
    )


@lru_cache(maxsize=1 << 16)
def _epsilon(history: History, delta: float, accountant: Accountant) -> float:
    if not history:
        return 0.0
    if any(mechanism.noise_multiplier == 0 for mechanism in history):
        return math.inf
    steps = [(m.noise_multiplier, m.sampling_probability, m.steps) for m in history]
    # Both accountants warn of what is handled here: infinities, and the ends of lists of orders.
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        by_rdp = _bound("rdp", steps, delta)
        if accountant == "rdp" or by_rdp > _PRV_LIMIT:
            return by_rdp
        try:
            by_prv = _bound("prv", steps, delta)
        except (RuntimeError, ValueError):
            # Its grid is too coarse for such a history; the other bound holds as well.
            return by_rdp
    return by_prv if math.isfinite(by_prv) else by_rdp


def _bound(name: Accountant, steps: list[tuple[float, float, int]], delta: float) -> float:
    # Takes a second to import, which runs without a privacy unit need not wait for.
    from pkgllm.privacy.opacus_door import PRVAccountant, RDPAccountant

    accountant = PRVAccountant() if name == "prv" else RDPAccountant()
    accountant.history = steps
    bound = float(accountant.get_epsilon(delta=delta))
    return math.inf if math.isnan(bound) else max(bound, 0.0)
