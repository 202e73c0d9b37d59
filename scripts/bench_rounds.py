"""Measure what Flower's messages and the aggregation of a round cost, and the memory they take.

A cohort in the local runtime has adapters as large as asked for. Its clients give back what they
received with a constant added, and the time of that is taken off, so what is timed is the way of an
adapter: into a message, to the client, back, through the server's checks and the strategy.

Beside it stands the lane engine's training of the workload of `bench_training.py`: qwen3-mini, KTO,
one local step. `messages_vs_training` is the seconds of messages and aggregation to those of
training, for cohorts of equal size: training is linear in the number of clients, and is scaled to
the larger cohort. It is not scaled to the larger adapter, although one of 10 million values belongs
to a base model some hundred times as large as qwen3-mini, which trains as much longer; so
`messages_vs_training_of_equal_adapters` scales messages and aggregation, which are linear in the
values, to the adapter of qwen3-mini. Both are of FedAvg; `slowest_vs_fedavg` says how much longer
the slowest strategy takes.

`peak_adapters` is the most that the aggregation of a round held at once beside the replies and what
the server remembers, in adapters of float32, as torch's profiler and tracemalloc see it. It is
taken in a round of its own, without the server's step.

usage: python scripts/bench_rounds.py [--json] [--values N] [--clients N] [--rounds N]
                                      [--training-clients N] [--strategy NAME]...
"""

import argparse
import gc
import json
import statistics
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch

from pkgllm.federation.algorithm import Aggregate, Algorithm
from pkgllm.federation.algorithms import ALGORITHMS
from pkgllm.federation.algorithms.aggregation import AGGREGATIONS
from pkgllm.federation.algorithms.fedavg import FedAvg
from pkgllm.federation.client_state import ClientStates
from pkgllm.federation.clients import LocalClients
from pkgllm.federation.flower.client_app import CohortApp
from pkgllm.federation.flower.grid import LocalGrid
from pkgllm.federation.flower.transport import FlowerTransport
from pkgllm.federation.messages import Update
from pkgllm.federation.rounds import RoundRecord, Rounds, run_rounds
from pkgllm.lm.adapter import AdapterState, adapter_state
from pkgllm.lm.base_model import load_base_model
from pkgllm.lm.lanes.decoder import LaneDecoder
from pkgllm.training.local import TrainedClient
from training_bench.our_ways import lane_trainer, make_policy
from training_bench.workload import (
    LEARNING_RATE,
    LORA_RANK,
    OBJECTIVES,
    Preset,
    make_workload,
    used_adapter,
)

TIMEOUT = 3600.0
"""Seconds for a round."""
NUM_LAYERS = 28 * 7
"""Adapted layers of Qwen3-0.6B; here they are all of one size."""

STD = 0.02
"""Of every value of the adapter."""

TRAINING_BYTES = 2 << 30


def make(kind: type[Algorithm]) -> Algorithm:
    """Return an algorithm with its defaults, and 1 where a setting has none."""
    required: dict[str, Any] = {f.name: 1 for f in fields(kind) if f.default is MISSING}
    return kind(**required)


WAYS: Mapping[str, tuple[Algorithm, Aggregate | None]] = {
    **{name: (make(ALGORITHMS[name]), None) for name in ALGORITHMS},
    "stack_svd": (FedAvg(), AGGREGATIONS["stack_svd"]),
}


class CheapClients:
    """Give back what they received, each with a constant of its own added."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(
        self, adapters: Mapping[str, AdapterState], *, round_num: int, **how: Any
    ) -> dict[str, TrainedClient | Exception]:
        """See :class:`~pkgllm.training.local.CohortTrainer`."""
        started = time.perf_counter()
        trained: dict[str, TrainedClient | Exception] = {
            client: TrainedClient(
                {key: value + 1e-6 * (number + 1) for key, value in adapter.items()}, 1, 0.0
            )
            for number, (client, adapter) in enumerate(adapters.items())
        }
        self.seconds += time.perf_counter() - started
        return trained


def peak_of(action: Callable[[], object]) -> int:
    """Return the most bytes that torch and numpy held at once beyond what they held before."""
    tracemalloc.start()
    cpu = torch.profiler.ProfilerActivity.CPU
    with torch.profiler.profile(activities=[cpu], profile_memory=True) as profile:
        action()
    events: Any = profile.profiler
    changes = [e for e in events.kineto_results.events() if e.name() == "[memory]"]
    held = most = 0
    for change in sorted(changes, key=lambda event: event.start_ns()):
        held += change.nbytes()
        most = max(most, held)
    most += tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most


def large_adapter(num_values: int) -> AdapterState:
    """Return an adapter of about so many values."""
    width = max(1, num_values // (2 * NUM_LAYERS * LORA_RANK))
    generator = torch.Generator().manual_seed(0)
    shapes = {"lora_A": (LORA_RANK, width), "lora_B": (width, LORA_RANK)}
    return {
        f"layers.{layer:03}.{name}.weight": STD * torch.randn(shape, generator=generator)
        for layer in range(NUM_LAYERS)
        for name, shape in shapes.items()
    }


def rounds_of(
    name: str, adapter: AdapterState, *, num_clients: int, num_rounds: int
) -> dict[str, float]:
    """Measure rounds of one algorithm, and the memory of the aggregation of one more."""
    clients, trainer = [f"client-{number}" for number in range(num_clients)], CheapClients()
    algorithm, aggregate = WAYS[name]
    watched = num_rounds + 2
    records: list[RoundRecord] = []
    seconds: list[float] = []
    peak_bytes = 0

    def watch(updates: Sequence[Update], before: AdapterState) -> AdapterState:
        nonlocal peak_bytes
        take = partial(aggregate or algorithm.aggregate, updates, before)
        if len(records) == watched - 1:
            gc.collect()
            peak_bytes = peak_of(take)
        return take()

    def on_round(record: RoundRecord) -> None:
        records.append(record)
        seconds.append(record.seconds - trainer.seconds)
        trainer.seconds = 0.0
        if record.failed:
            raise RuntimeError(f"{name}: clients failed: {record.failed}")

    with tempfile.TemporaryDirectory() as folder:
        local = LocalClients(trainer, algorithm, states=ClientStates(Path(folder)))
        rounds = Rounds(
            algorithm=algorithm,
            aggregate=watch,
            initial=adapter,
            num_rounds=watched,
            cohort_size=num_clients,
            seed=0,
            learning_rate=lambda round_num: 1e-3,
            timeout=TIMEOUT,
            on_round=on_round,
        )
        run_rounds(FlowerTransport(LocalGrid(CohortApp(local), clients)), rounds)
    aggregating = [record.aggregation_seconds for record in records]
    num_bytes = 4 * sum(value.numel() for value in adapter.values())
    state_bytes = sum(value.nbytes for value in records[-1].state.values())
    # The first round warms up, and the last one is watched.
    return {
        "seconds_of_a_round": statistics.median(seconds[1:-1]),
        "of_these_aggregating": statistics.median(aggregating[1:-1]),
        "peak_adapters": peak_bytes / num_bytes,
        "state_adapters": state_bytes / num_bytes,
    }


def training_seconds(num_clients: int) -> tuple[float, int]:
    """Return the seconds of a client in a later round of training, and its adapter's values."""
    make_base = partial(load_base_model, "qwen3-mini", device="cpu")
    workload = make_workload(
        Preset(make_base, num_clients=num_clients, start_std=0.05), num_clients
    )
    policy = make_policy(workload)
    start = used_adapter(adapter_state(policy), 0.05)
    trainer = lane_trainer(
        workload, LaneDecoder(policy), OBJECTIVES["kto"], steps=1, memory_bytes=TRAINING_BYTES
    )
    adapters = dict.fromkeys(workload.clients, start)
    taken = []
    for round_num in (1, 2, 3):
        started = time.perf_counter()
        trainer(adapters, round_num=round_num, learning_rate=LEARNING_RATE)
        taken.append(time.perf_counter() - started)
    # The first computes what the frozen base says, which is kept from then on.
    return min(taken[1:]) / num_clients, sum(value.numel() for value in start.values())


def measure(
    names: Sequence[str],
    *,
    num_values: int,
    num_clients: int,
    num_rounds: int,
    num_training_clients: int,
) -> dict[str, Any]:
    """Measure strategies and training, and put their ratios first."""
    adapter = large_adapter(num_values)
    found = {}
    for name in names:
        print(name, file=sys.stderr)
        found[name] = rounds_of(name, adapter, num_clients=num_clients, num_rounds=num_rounds)
    trained, small = training_seconds(num_training_clients)
    first = found[names[0]]["seconds_of_a_round"]
    ratio = first / (num_clients * trained)
    values = sum(value.numel() for value in adapter.values())
    return {
        "ratios": {
            "messages_vs_training": ratio,
            "messages_vs_training_of_equal_adapters": ratio * small / values,
            "slowest_vs_fedavg": max(each["seconds_of_a_round"] for each in found.values()) / first,
            "most_peak_adapters": max(each["peak_adapters"] for each in found.values()),
        },
        "strategies": found,
        "conditions": {
            "values": values,
            "clients": num_clients,
            "rounds": num_rounds,
            "training_clients": num_training_clients,
            "training_seconds_of_a_client": trained,
            "training_values": small,
            "threads": torch.get_num_threads(),
        },
    }


def print_tables(measured: Mapping[str, Any]) -> None:
    """Print what was measured in Markdown."""
    print(f"{datetime.now(UTC):%Y-%m-%d}\n")
    columns = list(next(iter(measured["strategies"].values())))
    print(f"| strategy | {' | '.join(name.replace('_', ' ') for name in columns)} |")
    print("|---" * (1 + len(columns)) + "|")
    for name, line in measured["strategies"].items():
        print(f"| {name} | {' | '.join(f'{line[key]:.3g}' for key in columns)} |")
    print("\n| what | measured |\n|---|---|")
    for name, value in (measured["ratios"] | measured["conditions"]).items():
        print(f"| {name.replace('_', ' ')} | {value:.4g} |")


def main(arguments: Sequence[str] | None = None) -> None:
    """Print tables, or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true", help="print one object instead")
    parser.add_argument("--values", type=int, default=10_000_000, help="of an adapter")
    parser.add_argument("--clients", type=int, default=64, help="of a cohort")
    parser.add_argument("--rounds", type=int, default=3, help="to time")
    parser.add_argument("--training-clients", type=int, default=32)
    parser.add_argument(
        "--strategy", choices=WAYS, action="append", help="beside fedavg; all when absent"
    )
    chosen = parser.parse_args(arguments)
    names = dict.fromkeys(["fedavg", *(chosen.strategy or WAYS)])
    measured = measure(
        list(names),
        num_values=chosen.values,
        num_clients=chosen.clients,
        num_rounds=chosen.rounds,
        num_training_clients=chosen.training_clients,
    )
    if chosen.json:
        print(json.dumps(measured))
    else:
        print_tables(measured)


if __name__ == "__main__":
    main()
