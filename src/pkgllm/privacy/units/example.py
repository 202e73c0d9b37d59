"""The privacy unit ``example``: DP-SGD on each client, before anything is sent."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from pkgllm.bounds import Positive
from pkgllm.privacy.mechanisms import Mechanism, SamplingSchedule
from pkgllm.privacy.unit import NoisyUnit, Participation
from pkgllm.registry import RunSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class ExamplePrivacy(NoisyUnit):
    """Differential privacy of one example, a group of a client: DP-SGD before anything is sent.

    The noise is added on the client, so the guarantee holds against the server as well, and a draw
    of clients does not strengthen it. How many groups a client has counts as known.
    """

    citation: ClassVar[str] = "Abadi et al. 2016, arXiv:1607.00133, algorithm 1"
    hides_examples: ClassVar[bool] = True
    units_are: ClassVar[str] = "examples of a client"

    name: Literal["example"] = "example"
    expected_batch_size: Positive
    """Groups that a step draws on average, each independently; the sum is divided by it, whatever
    was drawn. Stands in the place of ``training.groups_per_step``."""
    max_groups_per_fact: Positive = 2
    """Groups that one fact may enter; the epsilon of a fact is computed from it."""

    @property
    def fact_bound(self) -> int | None:
        """Groups that one fact may enter."""
        return self.max_groups_per_fact

    def _own_problems(self, run: RunSettings) -> Iterator[str]:
        if not run.mode.trains_together:
            yield (
                "mode.name must be federated or centralized with privacy.name example, got "
                f"{run.mode.name}, in which nothing leaves a client; set privacy.name to none"
            )
        if run.objective.couples_examples:
            yield (
                f"objective.name {run.objective.name} does not go with privacy.name example: its "
                "loss couples the examples of a batch, so one example moves the gradient of every "
                "other, and clipping does not bound what it does; use apo_zero, or kto with "
                "objective.kl_baseline public"
            )
        if run.training.engine != "lanes":
            yield (
                f"training.engine must be lanes with privacy.name example, got "
                f"{run.training.engine}, which has no gradient of each example by itself"
            )
        if run.synthetic.is_used:
            yield (
                "synthetic.graph_edits and synthetic.rule_facts must be 0 with privacy.name "
                "example: every made-up group depends on many facts, so a fact would enter more "
                "groups than max_groups_per_fact allows; set them to 0, or use privacy.name client"
            )

    def num_units(self, participation: Participation) -> Mapping[str, int]:
        """Return the groups of each client."""
        return participation.num_groups

    def schedules(self, participation: Participation, rounds: int) -> tuple[SamplingSchedule, ...]:
        """Return sampling and steps of each client that takes part in any of the rounds."""
        return tuple(
            SamplingSchedule(
                self._sampling_probability(participation, client),
                times * participation.steps_per_round,
            )
            for client, times in participation.rounds_by_client(rounds).items()
        )

    def releases(
        self, participation: Participation, noise_multiplier: float, cohort: Sequence[str]
    ) -> dict[str, Mechanism]:
        """Return the local steps of each client of a cohort."""
        return {
            client: Mechanism(
                noise_multiplier,
                self._sampling_probability(participation, client),
                participation.steps_per_round,
            )
            for client in cohort
        }

    def denominator(self, participation: Participation) -> int:
        """Return the expected number of examples in a step."""
        return self.expected_batch_size

    def _sampling_probability(self, participation: Participation, client: str) -> float:
        return min(1.0, self.expected_batch_size / participation.num_groups[client])
