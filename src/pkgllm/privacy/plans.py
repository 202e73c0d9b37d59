"""What a run will cost, before it is trained."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pkgllm.privacy.mechanisms import Unit
from pkgllm.privacy.statements import Guarantee


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
class Plan:
    """The privacy of a whole run."""

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


_FEW_CLIENTS = 100
_FEW_EXAMPLES = 100


def plan_warnings(plan: Plan) -> Sequence[str]:
    """Return why the numbers of a plan may mean less than they seem to."""
    _, most = plan.num_units
    delta, epsilon = plan.guarantee.delta, plan.guarantee.epsilon
    found = []
    if plan.guarantee.not_private:
        found.append(f"the run is not private, because {plan.guarantee.not_private}")
    if delta >= 1 / most:
        found.append(
            f"delta {delta:g} is not below 1 / {most}: a mechanism that gives one of {most} "
            f"{_plural(plan.unit)} away would pass, so the number means nothing and training is "
            "refused; lower privacy.delta"
        )
    if plan.unit == "client" and most < _FEW_CLIENTS:
        found.append(
            f"{most} clients are too few to hide one among them: with fewer than {_FEW_CLIENTS} "
            "the noise drowns what they teach or epsilon is large"
        )
    if plan.unit == "example" and most < _FEW_EXAMPLES:
        found.append(
            f"no client has more than {most} examples: with fewer than {_FEW_EXAMPLES} the noise "
            "drowns what they teach or epsilon is large"
        )
    if plan.last_round < plan.num_rounds:
        assert plan.budget is not None
        found.append(
            f"the budget of {plan.budget:g} ends the run after round {plan.last_round} of "
            f"{plan.num_rounds}"
        )
    if epsilon > 10:
        found.append(
            f"epsilon {epsilon:.3g} lets an observer be e^{epsilon:.3g} times surer of one "
            f"{plan.unit}; above 10 it promises next to nothing"
        )
    of_share = plan.guarantee.share_epsilon
    if of_share is not None and of_share > 10:
        found.append(
            f"epsilon {of_share:.3g} promises next to nothing against the server, which sees "
            "single shares of the noise; lower mode.min_updates to make them larger"
        )
    return found


def _plural(unit: Unit) -> str:
    return f"{unit}s"
