"""Strategies driven by hand: replies made of adapters, without clients."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from flwr.app import ArrayRecord, Message, MessageType, MetricRecord, RecordDict

from pkgllm.federation.algorithms.resumable import ResumableStrategy
from pkgllm.federation.flower import records
from pkgllm.federation.flower.grid import CohortGrid, LocalGrid
from pkgllm.federation.flower.internals import become_server
from pkgllm.lm.adapter import AdapterState


class Nobody:
    """A client side that is never asked."""

    flower_app = None

    def answer(self, messages: object, contexts: object) -> list[Message]:
        raise AssertionError("nobody is here")


def cohort_grid(clients: Sequence[str]) -> CohortGrid:
    """A grid to which these clients are connected."""
    grid = LocalGrid(Nobody(), clients)  # type: ignore[arg-type]
    return CohortGrid(grid, {node_id: client for client, node_id in grid.node_ids.items()})


def replies_of(updates: Sequence[AdapterState], weights: Sequence[float]) -> list[Message]:
    """The replies of the first clients, in order."""
    become_server()
    replies = []
    for node_id, (update, weight) in enumerate(zip(updates, weights, strict=True), start=2):
        asked = Message(RecordDict(), node_id, MessageType.TRAIN)
        content = RecordDict(
            {
                records.ARRAYS: records.to_record(update),
                records.METRICS: MetricRecord({records.WEIGHT: float(weight)}),
            }
        )
        replies.append(Message(content, reply_to=asked))
    return replies


def step(
    strategy: ResumableStrategy,
    round_num: int,
    adapter: AdapterState,
    updates: Sequence[AdapterState],
    weights: Sequence[float] | None = None,
    *,
    learning_rate: float = 0.1,
) -> AdapterState:
    """Take a strategy through a round in which all clients of a cohort come to these updates."""
    clients = [f"p{number}" for number in range(len(updates))]
    config = records.instruction_config(round_num, learning_rate)
    list(
        strategy.configure_train(
            round_num, records.to_record(adapter), config, cohort_grid(clients)
        )
    )
    arrays, _ = strategy.aggregate_train(
        round_num, replies_of(updates, weights or [1.0] * len(updates))
    )
    assert isinstance(arrays, ArrayRecord)
    assert all(array.dtype == "float32" for array in arrays.values())
    return records.to_adapter(arrays)


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
