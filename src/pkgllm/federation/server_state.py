"""What the server has between two rounds, and how a checkpoint keeps it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pkgllm.federation.algorithm import Algorithm, RoundFacts

if TYPE_CHECKING:
    from pkgllm.federation.algorithm import State
    from pkgllm.lm.adapter import AdapterState

_ACCEPTED = "accepted_rounds"


@dataclass(frozen=True, slots=True)
class ServerState:
    """The adapter, and what its algorithm needs for the next round."""

    adapter: AdapterState
    memory: State
    """The algorithm's own."""
    accepted_rounds: Mapping[str, int]
    """The last round in which each training client's update was averaged; 0 for none."""
    keeps_rounds: bool
    """Whether clients keep states, so that the accepted rounds must outlive the process."""

    @classmethod
    def begin(
        cls,
        algorithm: Algorithm,
        adapter: AdapterState,
        clients: Sequence[str],
        tensors: Mapping[str, Tensor] | None,
    ) -> ServerState:
        """Return the state before the first round of a run, or where a run goes on.

        Args:
            algorithm: The run's.
            adapter: Before the round.
            clients: All training clients, sorted.
            tensors: What :meth:`tensors` returned after the last round; None for a new run.

        Raises:
            ValueError: If the tensors are of another algorithm, another adapter or other clients.
        """
        fresh = cls(
            adapter, algorithm.init(adapter), dict.fromkeys(clients, 0), algorithm.client_state
        )
        return fresh if tensors is None else fresh._restored(tensors, algorithm.name)

    def after(
        self, algorithm: Algorithm, mean: AdapterState, facts: RoundFacts, accepted: Collection[str]
    ) -> ServerState:
        """Return the state after a round."""
        memory, adapter = algorithm.step(self.memory, self.adapter, mean, facts)
        rounds = {**self.accepted_rounds, **dict.fromkeys(accepted, facts.round_num)}
        return ServerState(adapter, memory, rounds, self.keeps_rounds)

    def is_finite(self) -> bool:
        """Return whether no value of the adapter or the memory is NaN or infinite."""
        parts = (self.adapter, *self.memory.values())
        return all(bool(value.isfinite().all()) for part in parts for value in part.values())

    def tensors(self) -> dict[str, Tensor]:
        """Return what must outlive the process beside the adapter, by name: float32 or int64."""
        tensors = {
            f"{part}/{key}": value
            for part, values in self.memory.items()
            for key, value in values.items()
        }
        if self.keeps_rounds:
            tensors[_ACCEPTED] = torch.tensor(list(self.accepted_rounds.values()))
        return tensors

    def _restored(self, tensors: Mapping[str, Tensor], algorithm: str) -> ServerState:
        """Return this fresh state with the tensors of an earlier one."""
        expected = {name: tuple(value.shape) for name, value in self.tensors().items()}
        shapes = {name: tuple(value.shape) for name, value in tensors.items()}
        wrong = sorted(
            name
            for name in expected.keys() | shapes.keys()
            if expected.get(name) != shapes.get(name)
        )
        if wrong:
            name = wrong[0]
            raise ValueError(
                f"the state of {algorithm} must hold {len(expected)} tensors of this adapter and "
                f"these clients; {name} must have the shape {expected.get(name, 'of none')}, got "
                f"{shapes.get(name, 'none')}; resume with the algorithm, the adapter and the "
                "clients that made it"
            )
        memory = {
            part: {key: tensors[f"{part}/{key}"] for key in values}
            for part, values in self.memory.items()
        }
        rounds = self.accepted_rounds
        if self.keeps_rounds:
            rounds = dict(zip(rounds, tensors[_ACCEPTED].tolist(), strict=True))
        return ServerState(self.adapter, memory, rounds, self.keeps_rounds)
