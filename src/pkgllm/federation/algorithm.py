"""What an aggregator is: a whole algorithm, the server's and the clients' side, on tensors.

An algorithm has no memory of its own. What the server remembers is a value that :meth:`step` takes
and returns; what a client remembers is a value that :meth:`renew` returns. So a run that goes on
from a checkpoint goes on to the bit.

To add one: a file in :mod:`pkgllm.federation.algorithms`, its line in the registry, its test, and a
paragraph in ``docs/aggregation.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pkgllm.federation.messages import Broadcast, Instruction, Update
from pkgllm.registry import Choice, RunSettings

if TYPE_CHECKING:
    from pkgllm.lm.adapter import AdapterState

    State = Mapping[str, AdapterState]
    """What the server remembers: named tensors with the keys and shapes of the adapter."""

Aggregate = Callable[[Sequence[Update], "AdapterState"], "AdapterState"]
"""Makes one adapter of those of a cohort, and of the one that the cohort received."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundFacts:
    """What the server's step may depend on beside the updates."""

    round_num: int
    """From 1."""
    learning_rate: float
    """Of the clients."""
    local_steps: int
    """Optimiser steps of a client."""
    num_clients: int
    """All training clients."""
    cohort_size: int
    """Updates in the mean; the expected number where noise hides who took part."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalTerms:
    r"""What is added to a client's gradient after it is clipped: :math:`\mu (y - x) + c`."""

    proximal_mu: float = 0.0
    r""":math:`\mu`, which holds the client's adapter :math:`y` to :math:`x`, that it received."""
    correction: AdapterState | None = None
    """:math:`c`; None for none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Algorithm(Choice):
    """How the updates of a cohort become the next adapter, and how clients make them.

    In a round the server sends the adapter and :meth:`broadcast`; clients train with
    :meth:`terms`; :meth:`aggregate` makes one update of theirs, and :meth:`step` the next adapter.
    As it stands here that is federated averaging.
    """

    linear: ClassVar[bool] = True
    """Whether an update enters as one term of a sum of equal weights, so that clipping it bounds
    what a client does."""
    equal_weights: ClassVar[bool] = False
    """Whether updates must have equal weights."""
    compares_values: ClassVar[bool] = False
    """Whether single values are compared, between rounds or between clients; then the axes of the
    factors must stay as they are."""
    client_state: ClassVar[bool] = False
    """Whether each client keeps tensors of its own between rounds."""
    sends: ClassVar[tuple[str, ...]] = ()
    """Names of what :meth:`broadcast` returns."""

    def init(self, adapter: AdapterState) -> State:
        """Return what the server remembers before the first round."""
        return {}

    def broadcast(self, state: State) -> Broadcast:
        """Return what a cohort is sent beside the adapter."""
        return Broadcast()

    def aggregate(self, updates: Sequence[Update], adapter: AdapterState) -> AdapterState:
        """Return the one adapter that stands for those of a cohort.

        Args:
            updates: In order of client id, at least one.
            adapter: What the cohort received.
        """
        from pkgllm.federation.means import weighted_mean

        return weighted_mean(updates)

    def aggregator(self, cohort_size: int) -> Aggregate:
        """Return :meth:`aggregate` for a cohort of which some sent nothing that can be used."""
        return self.aggregate

    def least_updates(self, cohort_size: int) -> int:
        """Return how many updates of a cohort the rule needs to hold what it promises."""
        return 1

    def step(
        self, state: State, adapter: AdapterState, mean: AdapterState, facts: RoundFacts
    ) -> tuple[State, AdapterState]:
        """Return what the server remembers after a round, and the next adapter.

        Nothing that it is given is changed.

        Args:
            state: Before the round.
            adapter: What the cohort received.
            mean: What :meth:`aggregate` returned, or the noisy mean of the updates.
            facts: Of the round.
        """
        return state, mean

    def terms(self, sent: Instruction, own: AdapterState) -> LocalTerms:
        """Return what a client adds to its gradients.

        Args:
            sent: What the client received.
            own: What it keeps, zeros before its first round; empty without :attr:`client_state`.
        """
        return LocalTerms()

    def renew(
        self, sent: Instruction, own: AdapterState, trained: AdapterState, local_steps: int
    ) -> AdapterState:
        """Return what a client keeps until its next round, if the server accepts its update.

        Args:
            sent: What the client received.
            own: What it kept before.
            trained: Its adapter after the local steps.
            local_steps: How many it took.
        """
        return own

    def problems(self, run: RunSettings) -> Iterator[str]:
        """Yield what the run must be changed in for this algorithm, a line each."""
        if self.equal_weights and run.mode.weighting != "uniform":
            yield (
                f"mode.strategy {self.name} gives every update the same weight; set mode.weighting "
                f"to uniform, got {run.mode.weighting}"
            )
