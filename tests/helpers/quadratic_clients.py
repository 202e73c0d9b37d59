"""Clients that step towards a point of their own, so that means are known by hand."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from flwr.app import Message, RecordDict

from pkgllm.lm.adapter import AdapterState
from pkgllm.training.local import NO_CORRECTIONS, TrainedClient

SECRET = "liked The Drowned Lighthouse (1987)"


class QuadraticClients:
    """Descends ``curvature / 2 * (factor - target)**2``; knows secrets it never needs.

    Args:
        targets: Each client's point.
        num_groups: Each client's number of groups; 3 where absent.
        faults: The adapter or the exception that a client comes to, whatever it is sent.
        curvatures: Of each client's quadratic; 1 where absent.
        local_steps: Steps of a round.
    """

    def __init__(
        self,
        targets: Mapping[str, float],
        *,
        num_groups: Mapping[str, int] | None = None,
        faults: Mapping[str, AdapterState | Exception] | None = None,
        curvatures: Mapping[str, float] | None = None,
        local_steps: int = 1,
    ) -> None:
        self.targets = targets
        self.num_groups = num_groups or {}
        self.faults = faults or {}
        self.curvatures = curvatures or {}
        self.local_steps = local_steps
        self.facts = {client: f"{client} {SECRET}" for client in targets}
        self.calls: list[tuple[int, tuple[str, ...], float]] = []
        self.baselines: list[float | None] = []

    def __call__(
        self,
        adapters: Mapping[str, AdapterState],
        *,
        round_num: int,
        learning_rate: float,
        proximal_mu: float = 0.0,
        kl_baseline: float | None = None,
        corrections: Mapping[str, AdapterState] = NO_CORRECTIONS,
    ) -> dict[str, TrainedClient | Exception]:
        self.begin(adapters, round_num)
        self.calls.append((round_num, tuple(adapters), learning_rate))
        self.baselines.append(kl_baseline)
        self.proximal_mu = proximal_mu
        self.corrections = corrections
        return {
            client: self.train(client, adapter, learning_rate)
            for client, adapter in adapters.items()
        }

    def begin(self, adapters: Mapping[str, AdapterState], round_num: int) -> None:
        """Called with what a call received; a test that needs more overrides it."""

    def train(
        self, client: str, adapter: AdapterState, learning_rate: float
    ) -> TrainedClient | Exception:
        """Return what one client comes to, with the terms of the last call."""
        fault = self.faults.get(client)
        if isinstance(fault, Exception):
            return fault
        target, correction = self.targets[client], self.corrections.get(client)
        trained = dict(adapter)
        for _ in range(self.local_steps):
            for key, value in trained.items():
                step = self.curvatures.get(client, 1.0) * (target - value)
                if self.proximal_mu:
                    step = step - self.proximal_mu * (value - adapter[key])
                if correction is not None:
                    step = step - correction[key]
                trained[key] = value + learning_rate * step
        if fault is not None:
            trained = fault
        return TrainedClient(trained, self.num_groups.get(client, 3), loss=abs(target))

    proximal_mu: float = 0.0
    corrections: Mapping[str, AdapterState] = NO_CORRECTIONS


def adapter_at(value: float) -> AdapterState:
    """Return an adapter of two factors, every entry of them the same."""
    return {"layer.lora_A": torch.full((2, 3), value), "layer.lora_B": torch.full((3, 2), value)}


def entries(adapter: AdapterState) -> set[float]:
    """Return the different values that an adapter holds."""
    return {float(entry) for value in adapter.values() for entry in value.flatten()}


def same_bytes(one: AdapterState, other: AdapterState) -> bool:
    """Say whether two adapters are equal to the bit."""
    return list(one) == list(other) and all(
        one[key].numpy().tobytes() == other[key].numpy().tobytes() for key in one
    )


def serialised(sent: Message | RecordDict) -> bytes:
    """Return every byte that Flower would put on the wire for a message or its content."""
    return b"".join(_deflated(sent))


def _deflated(part: Any) -> Iterator[bytes]:
    yield part.deflate()
    for child in (part.children or {}).values():
        yield from _deflated(child)
