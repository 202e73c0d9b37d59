"""What the privacy of a run costs, computed without training; and what is refused before it.

Which histories clients will have is known before the run: cohorts of the unit ``example``, and
those whose clients add the noise, are drawn from the run's seed, so each client's rounds can be
counted. Otherwise, with the unit ``client``, all share one.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from pkgllm.errors import PrivacyError
from pkgllm.privacy.accounting import calibrate_noise, largest_epsilon
from pkgllm.privacy.mechanisms import Mechanism, Unit, share_mechanism
from pkgllm.privacy.statements import Guarantee, guarantee_of
from pkgllm.privacy.unit import NoisyUnit, Participation

_Number = TypeVar("_Number", int, float)

_SHARES = (0.25, 0.5, 0.75, 1.0)
"""Of the rounds after which a plan says what is spent, beside the first."""

_FEW_UNITS = 100


@dataclass(frozen=True, slots=True)
class Spending:
    """What is spent when a round is over."""

    round_num: int
    epsilon: float
    fact_epsilon: float | None
    """None where the unit is a client."""
    share_epsilon: float | None = None
    """Of a client whose shares are seen one by one; None where clients add no noise."""


@dataclass(frozen=True, slots=True)
class PrivacyPlan:
    """The privacy of a whole run, before it is trained."""

    guarantee: Guarantee
    """At the end of the last round, whatever the budget."""
    num_clients: int
    """Training clients that have a group."""
    num_units: tuple[int, int]
    """Units among which one is hidden, least and most: all clients, or a client's groups."""
    sampling_probability: tuple[float, float]
    """Of one unit in one step, least and most over the clients."""
    steps: tuple[int, int]
    """Noisy steps in the whole run, least and most over the clients."""
    noise_multiplier: float
    calibrated: bool
    """Whether it was computed from a target epsilon."""
    clip_norm: float
    denominator: int
    """By what a noisy sum is divided: the expected cohort or batch."""
    num_parameters: int
    """Of the adapter, trained ones."""
    by_round: tuple[Spending, ...]
    last_round: int
    """The last round within the budget."""
    num_rounds: int
    budget: float | None

    @property
    def unit(self) -> Unit:
        """Whose taking part is hidden."""
        return self.guarantee.unit

    @property
    def noise_norm(self) -> float:
        """Expected norm of the noise of one step, after division, by clip norm.

        Where clients add shares of it, it is that of a cohort which is there as a whole.
        """
        shares = self.guarantee.min_shares
        louder = 1.0 if shares is None else math.sqrt(self.denominator / shares)
        noise_multiplier = louder * self.noise_multiplier
        return noise_multiplier * math.sqrt(self.num_parameters) / self.denominator


def plan_privacy(
    unit: NoisyUnit, participation: Participation, *, num_parameters: int
) -> PrivacyPlan:
    """Return what a whole run costs.

    Raises:
        PrivacyError: If the target epsilon cannot be reached.
    """
    noise, rounds = settle_noise(unit, participation), participation.rounds
    by_round = tuple(
        _spending(unit, participation, noise, round_num)
        for round_num in sorted({1, *(max(1, round(share * rounds)) for share in _SHARES)})
    )
    schedules = unit.schedules(participation, rounds)
    last = by_round[-1]
    return PrivacyPlan(
        guarantee=guarantee_of(
            unit,
            last.epsilon,
            last.fact_epsilon,
            min_shares=unit.min_shares(participation.min_updates),
            share_epsilon=last.share_epsilon,
        ),
        num_clients=participation.num_clients,
        num_units=_ends(unit.num_units(participation).values()),
        sampling_probability=_ends(one.sampling_probability for one in schedules),
        steps=_ends(one.steps for one in schedules),
        noise_multiplier=noise,
        calibrated=unit.noise_multiplier is None,
        clip_norm=unit.clip_norm,
        denominator=unit.denominator(participation),
        num_parameters=num_parameters,
        by_round=by_round,
        last_round=_last_round(unit, participation, noise, last),
        num_rounds=rounds,
        budget=unit.budget,
    )


def settle_noise(unit: NoisyUnit, participation: Participation) -> float:
    """Return the noise multiplier of a run, computed from the target epsilon where one is set.

    It is that of all sums of a step together; with adaptive clipping the updates have a larger one.

    Raises:
        PrivacyError: If the target epsilon cannot be reached.
    """
    if unit.noise_multiplier is not None:
        return unit.noise_multiplier
    assert unit.target_epsilon is not None
    noise = calibrate_noise(
        unit.target_epsilon,
        delta=unit.delta,
        schedules=unit.schedules(participation, participation.rounds),
        accountant=unit.accountant,
    )
    unit.check_noise(noise)
    return noise


def check_privacy(unit: NoisyUnit, participation: Participation) -> float:
    """Return the noise multiplier, or fail before anything is trained or written.

    Raises:
        PrivacyError: If delta is too large for the number of units, or the target epsilon cannot be
            reached.
    """
    num_units = max(unit.num_units(participation).values())
    # With a larger delta a mechanism that gives one unit away would pass.
    if unit.delta >= 1 / num_units:
        raise PrivacyError(
            f"privacy.delta must be below 1 / {num_units} = {1 / num_units:.3g}, because there are "
            f"{num_units} {unit.units_are}, got {unit.delta:g}; lower it"
        )
    return settle_noise(unit, participation)


def plan_warnings(plan: PrivacyPlan) -> Sequence[str]:
    """Return why the numbers of a plan may mean less than they seem to."""
    _, most = plan.num_units
    delta, epsilon = plan.guarantee.delta, plan.guarantee.epsilon
    warnings = []
    if plan.guarantee.not_private:
        warnings.append(f"the run is not private, because {plan.guarantee.not_private}")
    if delta >= 1 / most:
        warnings.append(
            f"delta {delta:g} is not below 1 / {most}: a mechanism that gives one of {most} "
            f"{plan.unit}s away would pass, so the number means nothing and training is "
            "refused; lower privacy.delta"
        )
    if plan.unit == "client" and most < _FEW_UNITS:
        warnings.append(
            f"{most} clients are too few to hide one among them: with fewer than {_FEW_UNITS} "
            "the noise drowns what they teach or epsilon is large"
        )
    if plan.unit == "example" and most < _FEW_UNITS:
        warnings.append(
            f"no client has more than {most} examples: with fewer than {_FEW_UNITS} the noise "
            "drowns what they teach or epsilon is large"
        )
    if plan.last_round < plan.num_rounds:
        assert plan.budget is not None
        warnings.append(
            f"the budget of {plan.budget:g} ends the run after round {plan.last_round} of "
            f"{plan.num_rounds}"
        )
    if epsilon > 10:
        warnings.append(
            f"epsilon {epsilon:.3g} lets an observer be e^{epsilon:.3g} times surer of one "
            f"{plan.unit}; above 10 it guarantees next to nothing"
        )
    share_epsilon = plan.guarantee.share_epsilon
    if share_epsilon is not None and share_epsilon > 10:
        warnings.append(
            f"epsilon {share_epsilon:.3g} guarantees next to nothing against the server, which "
            "sees single shares of the noise; lower mode.min_updates to make them larger"
        )
    return warnings


def _spending(
    unit: NoisyUnit, participation: Participation, noise: float, round_num: int
) -> Spending:
    released = [one.mechanism(noise) for one in unit.schedules(participation, round_num)]

    def largest(mechanisms: Iterable[Mechanism], max_groups: int = 1) -> float:
        return largest_epsilon(
            ([one] for one in mechanisms),
            delta=unit.delta,
            accountant=unit.accountant,
            max_groups=max_groups,
        )

    bound, shares = unit.fact_bound, unit.min_shares(participation.min_updates)
    return Spending(
        round_num,
        largest(released),
        None if bound is None else largest(released, bound),
        None if shares is None else largest(share_mechanism(one, shares) for one in released),
    )


def _last_round(unit: NoisyUnit, participation: Participation, noise: float, last: Spending) -> int:
    """Return the last round within the budget, by bisection, as epsilon only grows."""
    budget = unit.budget
    if budget is None or last.epsilon <= budget:
        return last.round_num
    within, beyond = 0, last.round_num
    while beyond - within > 1:
        middle = (within + beyond) // 2
        mechanisms = [[one.mechanism(noise)] for one in unit.schedules(participation, middle)]
        spent = largest_epsilon(mechanisms, delta=unit.delta, accountant=unit.accountant)
        within, beyond = (middle, beyond) if spent <= budget else (within, middle)
    return within


def _ends(values: Iterable[_Number]) -> tuple[_Number, _Number]:
    numbers = list(values)
    return min(numbers), max(numbers)
