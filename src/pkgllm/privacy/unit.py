"""What every privacy unit says of itself, and what those with a guarantee have in common."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from pkgllm.bounds import PositiveFloat, Probability
from pkgllm.privacy.mechanisms import Mechanism, NeighboringRelation, SamplingSchedule, Unit
from pkgllm.registry import Choice, RunSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Participation:
    """Who takes part in the rounds of a run, as far as its privacy depends on it."""

    num_clients: int
    """Training clients that have a group."""
    num_groups: Mapping[str, int]
    """Groups by client; of a centralised run the groups of all, under one name."""
    rounds: int
    steps_per_round: int
    """Optimiser steps of a client in a round."""
    cohort_size: int
    min_updates: int
    """Updates that a round needs at least."""
    rounds_by_client: Callable[[int], Mapping[str, int]]
    """Returns in how many of the first so many rounds each client takes part."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivacyUnit(Choice):
    """Whose taking part is hidden."""

    adds_noise: ClassVar[bool] = True
    hides_examples: ClassVar[bool] = False
    """Whether the unit is an example: clients noise the gradient of each local step."""
    hides_clients: ClassVar[bool] = False
    """Whether the unit is a client with all that it holds."""

    report_private_metrics: bool = False
    """Let losses and counts leave the clients; marks the run as not private."""

    @property
    def clients_add_noise(self) -> bool:
        """Whether every client adds its share of the noise to the update before it sends it."""
        return False

    @property
    def hides_cohort(self) -> bool:
        """Whether it must stay secret who takes part in a round."""
        return False

    @property
    def budget(self) -> float | None:
        """Epsilon that no round may exceed; None for no budget."""
        return None

    @property
    def fact_bound(self) -> int | None:
        """Groups that one fact may enter; None for any number."""
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class NoisyUnit(PrivacyUnit):
    """Settings and rules of the units with a guarantee.

    Raises:
        ValueError: If the noise is set twice or not at all, or the budget is below the target.
    """

    name: Unit
    delta: Probability
    """Probability that the bound of epsilon does not hold; must be below 1 / number of units."""
    clip_norm: PositiveFloat
    """Longest contribution of one unit to a sum; longer ones are scaled down to it."""
    noise_multiplier: PositiveFloat | None = None
    """Standard deviation of the noise on the sum, by ``clip_norm``; this or ``target_epsilon``."""
    target_epsilon: PositiveFloat | None = None
    """Epsilon of the whole run, from which the noise is computed before it begins. It is also the
    budget where ``max_epsilon`` is absent."""
    max_epsilon: PositiveFloat | None = None
    """Budget: the run stops before the round that would exceed it. In a deployment each client
    keeps to it by itself, over all runs."""
    accountant: Literal["prv", "rdp"] = "prv"
    """What computes epsilon: numerical composition (Gopi et al. 2021), or Rényi divergences."""
    report_private_metrics: bool = False
    """Let losses and counts leave the clients without noise; marks the run as not private."""

    units_are: ClassVar[str]
    """What messages call several units."""

    def __post_init__(self) -> None:
        if problems := list(self._noise_problems()):
            raise ValueError("\n".join(problems))

    def _noise_problems(self) -> Iterator[str]:
        noise, target = self.noise_multiplier, self.target_epsilon
        if noise is None and target is None:
            yield (
                "must hold noise_multiplier or target_epsilon, has neither; give the noise itself, "
                "or the epsilon that it is computed from"
            )
        elif noise is not None and target is not None:
            yield (
                "must hold one of noise_multiplier and target_epsilon, has both, "
                f"{noise:g} and {target:g}; leave one out"
            )
        elif self.max_epsilon is not None and target is not None and self.max_epsilon < target:
            yield (
                f"max_epsilon must be at least target_epsilon, {target:g}, got "
                f"{self.max_epsilon:g}, with which the last rounds would never be done; leave it "
                "out"
            )

    def problems(self, run: RunSettings) -> Iterator[str]:
        """Yield what would show private data beside the noise, or change whose they are."""
        if getattr(run.mode, "weighting", "uniform") == "examples":
            yield (
                f"mode.weighting must be uniform with privacy.name {self.name}, got examples: a "
                "weight that depends on a private count is no part of what is clipped and noised"
            )
        yield from self._own_problems(run)
        if run.partition.changes_groups:
            yield (
                f"partition {run.partition.name} does not go with privacy.name {self.name}: what a "
                "client trains on then depends on others, or on more than the accounting knows; "
                "use partition by_client"
            )
        if run.observation.evaluate_every and not self.report_private_metrics:
            yield (
                f"observation.evaluate_every must be 0 with privacy.name {self.name}, because "
                "ranks of private facts leave without noise; set it to 0, or "
                "privacy.report_private_metrics to mark the run as not private"
            )

    @property
    def budget(self) -> float | None:
        """Epsilon that no round may exceed; None for no budget."""
        return self.max_epsilon if self.max_epsilon is not None else self.target_epsilon

    @property
    def neighboring_relation(self) -> NeighboringRelation:
        """Which two data sets must not be told apart."""
        return NeighboringRelation.ADD_OR_REMOVE_ONE

    def min_shares(self, min_updates: int) -> int | None:
        """Return how many shares make up the noise; None where clients add none.

        Args:
            min_updates: Updates that a round needs at least.
        """
        return min_updates if self.clients_add_noise else None

    def check_noise(self, noise_multiplier: float) -> None:
        """Fail where a computed noise multiplier does not go with the other settings.

        Raises:
            PrivacyError: If it does not.
        """

    @abstractmethod
    def _own_problems(self, run: RunSettings) -> Iterable[str]:
        """Return the rules of this unit alone."""

    @abstractmethod
    def num_units(self, participation: Participation) -> Mapping[str, int]:
        """Return among how many units one is hidden, for everybody to whom releases are charged."""

    @abstractmethod
    def schedules(self, participation: Participation, rounds: int) -> tuple[SamplingSchedule, ...]:
        """Return sampling and steps of the first rounds, for everybody whom they are charged to."""

    @abstractmethod
    def releases(
        self, participation: Participation, noise_multiplier: float, cohort: Sequence[str]
    ) -> dict[str, Mechanism]:
        """Return what one round of a cohort releases, for everybody whom it is charged to."""

    @abstractmethod
    def denominator(self, participation: Participation) -> int:
        """Return what a noisy sum is divided by: the expected number of units in it."""
