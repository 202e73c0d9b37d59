"""The privacy unit ``client``: noise on the sum of a cohort's updates."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from pkgllm.errors import PrivacyError
from pkgllm.privacy.adaptive_clipping import AdaptiveClipping
from pkgllm.privacy.mechanisms import RUN, Mechanism, NeighboringRelation, SamplingSchedule
from pkgllm.privacy.unit import NoisyUnit, Participation
from pkgllm.registry import RunSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientPrivacy(NoisyUnit):
    """Differential privacy of one client with all that it holds: noise on the sum of updates.

    The sum is divided by ``mode.cohort_size``, whoever came. With ``mechanism: central`` every
    training client is drawn independently, with probability ``mode.cohort_size`` by their number.
    With ``mechanism: local`` cohorts have that size, and who takes part counts as known.
    """

    citation: ClassVar[str] = "McMahan et al. 2018, arXiv:1710.06963, algorithm 1"
    hides_clients: ClassVar[bool] = True
    units_are: ClassVar[str] = "training clients"

    name: Literal["client"] = "client"
    mechanism: Literal["central", "local"] = "central"
    """Who adds the noise: the server, which must be trusted, or every client its share of it before
    it sends. Shares are sized by ``mode.min_updates``: so many make up ``noise_multiplier`` on the
    sum, and one by itself has it by the root of that number. ``target_epsilon`` and ``max_epsilon``
    are those of sums; with 1 the server, which sees single shares, has no better view."""
    adaptive_clipping: AdaptiveClipping | None = None
    """When absent ``clip_norm`` stays as it is; otherwise that is where it begins. Not with
    ``mechanism: local``."""

    @property
    def clients_add_noise(self) -> bool:
        """Whether every client adds its share of the noise to the update before it sends it."""
        return self.mechanism == "local"

    @property
    def hides_cohort(self) -> bool:
        """Whether it must stay secret who takes part in a round: the draw is part of the noise."""
        return not self.clients_add_noise

    @property
    def neighboring_relation(self) -> NeighboringRelation:
        """Which two data sets must not be told apart."""
        if self.clients_add_noise:
            return NeighboringRelation.ZERO_OUT_ONE
        return NeighboringRelation.ADD_OR_REMOVE_ONE

    def _own_problems(self, run: RunSettings) -> Iterator[str]:
        mode, clipping = run.mode, self.adaptive_clipping
        if not mode.sums_updates:
            instead = "example or none" if mode.trains_together else "none"
            yield (
                f"mode.name must be federated with privacy.name client, got {mode.name}, in which "
                f"no sum of updates is made; set privacy.name to {instead}"
            )
        elif not mode.strategy.linear:
            yield (
                f"mode.strategy {mode.strategy.name} does not go with privacy.name client: it "
                "chooses or weights updates by their values, so the clip norm does not bound what "
                "one client does; use fedavg or another strategy that takes a mean"
            )
        if clipping is not None and self.clients_add_noise:
            yield (
                "privacy.adaptive_clipping does not go with privacy.mechanism local: the number of "
                "updates within the clip norm would leave the clients without noise; leave it out, "
                "or use central"
            )
        if (
            clipping is not None
            and self.noise_multiplier is not None
            and not clipping.leaves_budget(self.noise_multiplier)
        ):
            yield (
                "privacy.adaptive_clipping.count_noise_std must be above half of "
                f"privacy.noise_multiplier, {self.noise_multiplier:g}, or the count alone would "
                f"spend all of the budget, got {clipping.count_noise_std:g}; raise it"
            )

    def check_noise(self, noise_multiplier: float) -> None:
        """Fail where the count of adaptive clipping would spend all of the budget.

        Raises:
            PrivacyError: If it would.
        """
        clipping = self.adaptive_clipping
        if clipping is not None and not clipping.leaves_budget(noise_multiplier):
            raise PrivacyError(
                "privacy.adaptive_clipping.count_noise_std must be above half of the noise "
                f"multiplier {noise_multiplier:.4g} that target_epsilon {self.target_epsilon:g} "
                "needs, or the count alone would spend all of it, got "
                f"{clipping.count_noise_std:g}; raise it"
            )

    def num_units(self, participation: Participation) -> Mapping[str, int]:
        """Return the number of clients: all spend together."""
        return {RUN: participation.num_clients}

    def schedules(self, participation: Participation, rounds: int) -> tuple[SamplingSchedule, ...]:
        """Return one schedule of all, or that of each client where clients add the noise."""
        if not self.clients_add_noise:
            return (
                SamplingSchedule(participation.cohort_size / participation.num_clients, rounds),
            )
        drawn = participation.rounds_by_client(rounds)
        return tuple(SamplingSchedule(1.0, times) for times in drawn.values())

    def releases(
        self, participation: Participation, noise_multiplier: float, cohort: Sequence[str]
    ) -> dict[str, Mechanism]:
        """Return the noisy sum, or what each client of a cohort is charged for its share of it.

        A share is charged as what is seen of the sum; the price of the share follows from that.
        """
        if not self.clients_add_noise:
            share = participation.cohort_size / participation.num_clients
            return {RUN: Mechanism(noise_multiplier, share)}
        one = Mechanism(noise_multiplier, 1.0, neighboring_relation=self.neighboring_relation)
        return dict.fromkeys(cohort, one)

    def denominator(self, participation: Participation) -> int:
        """Return the expected number of updates in a sum."""
        return participation.cohort_size
