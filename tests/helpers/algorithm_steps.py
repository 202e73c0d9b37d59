"""Algorithms taken through rounds by hand: updates made of adapters, without clients."""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any

import numpy as np
import torch

from pkgllm.federation.algorithm import Aggregate, Algorithm, RoundFacts
from pkgllm.federation.messages import Update
from pkgllm.lm.adapter import AdapterState


def with_defaults(kind: type[Algorithm]) -> Algorithm:
    """An algorithm with its defaults, and 1 where a setting has none."""
    required: dict[str, Any] = {f.name: 1 for f in fields(kind) if f.default is MISSING}
    return kind(**required)


class Server:
    """Takes rounds of an algorithm in which whole cohorts come to given updates."""

    def __init__(
        self, algorithm: Algorithm, adapter: AdapterState, aggregate: Aggregate | None = None
    ) -> None:
        self.algorithm, self.adapter = algorithm, adapter
        self.aggregate = aggregate or algorithm.aggregate
        self.state = algorithm.init(adapter)
        self.round_num = 0

    def take(
        self,
        updates: Sequence[AdapterState],
        weights: Sequence[float] | None = None,
        *,
        learning_rate: float = 0.1,
    ) -> AdapterState:
        """Return the adapter after one more round."""
        self.round_num += 1
        replies = [
            Update(adapter=adapter, weight=weight)
            for adapter, weight in zip(updates, weights or [1.0] * len(updates), strict=True)
        ]
        facts = RoundFacts(
            round_num=self.round_num,
            learning_rate=learning_rate,
            local_steps=1,
            num_clients=len(updates),
            cohort_size=len(updates),
        )
        mean = self.aggregate(replies, self.adapter)
        self.state, self.adapter = self.algorithm.step(self.state, self.adapter, mean, facts)
        assert all(value.dtype == torch.float32 for value in self.adapter.values())
        return self.adapter


def some_adapter(seed: int, *, std: float = 1.0) -> AdapterState:
    """An adapter of one layer: rank 2, three inputs, four outputs."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"layer.lora_A": (2, 3), "layer.lora_B": (4, 2)}
    return {key: std * torch.randn(shape, generator=generator) for key, shape in shapes.items()}


def moved(adapter: AdapterState, seed: int, *, std: float) -> AdapterState:
    """The adapter after a random step."""
    return {key: adapter[key] + value for key, value in some_adapter(seed, std=std).items()}


def doubles(adapter: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """The same in double precision."""
    return {key: value.double().numpy() for key, value in adapter.items()}
