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
the strategy remembers, in adapters of float32, as tracemalloc sees it, which knows numpy and bytes.
It is taken in a round of its own.

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
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch
from flwr.app import ArrayRecord, Message, MetricRecord

from pkgllm.config import strategy_sections as sections
from pkgllm.federation.algorithms.client_controls import ClientControls
from pkgllm.federation.algorithms.strategies import make_strategy
from pkgllm.federation.control_store import ControlStore
from pkgllm.federation.flower.client_app import CohortApp
from pkgllm.federation.flower.server_app import make_server_app, run_in_process
from pkgllm.federation.rounds import RoundRecord, Rounds
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

SECTIONS: Mapping[str, sections.Strategy] = {
    "fedavg": sections.FedAvg(name="fedavg"),
    "fedprox": sections.FedProx(name="fedprox"),
    "scaffold": sections.Scaffold(name="scaffold"),
    "fedavgm": sections.FedAvgM(name="fedavgm"),
    "fedadagrad": sections.FedAdagrad(name="fedadagrad"),
    "fedyogi": sections.FedYogi(name="fedyogi"),
    "fedadam": sections.FedAdam(name="fedadam"),
    "fedmedian": sections.FedMedian(name="fedmedian"),
    "fedtrimmedavg": sections.FedTrimmedAvg(name="fedtrimmedavg"),
    "krum": sections.Krum(name="krum", num_malicious=1),
    "stack_svd": sections.FedAvg(name="fedavg"),
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
    """Measure rounds of one strategy, and the memory of the aggregation of one more."""
    clients, trainer = [f"client-{number}" for number in range(num_clients)], CheapClients()
    section = SECTIONS[name]
    strategy = make_strategy(
        section.name,
        section.model_dump(exclude={"name"}),
        aggregation="stack_svd" if name == "stack_svd" else "factor_mean",
        clients=clients,
        local_steps=1,
    )
    aggregate, watched = strategy.aggregate_train, num_rounds + 2
    seconds: list[float] = []
    aggregating: list[float] = []
    peak_bytes = 0

    def watch(
        round_num: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        nonlocal peak_bytes
        gc.collect()
        if round_num == watched:
            tracemalloc.start()
        started = time.perf_counter()
        found = aggregate(round_num, replies)
        aggregating.append(time.perf_counter() - started)
        if round_num == watched:
            peak_bytes = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        return found

    def on_round(record: RoundRecord) -> None:
        seconds.append(record.seconds - trainer.seconds)
        trainer.seconds = 0.0
        if record.failed:
            raise RuntimeError(f"{name}: clients failed: {record.failed}")

    strategy.aggregate_train = watch  # type: ignore[method-assign, assignment]
    with tempfile.TemporaryDirectory() as folder:
        controls = None
        if name == "scaffold":
            controls = ClientControls(
                ControlStore(Path(folder) / "controls", clients, adapter), local_steps=1
            )
        rounds = Rounds(
            strategy=strategy,
            initial=adapter,
            num_rounds=watched,
            cohort_size=num_clients,
            seed=0,
            learning_rate=lambda round_num: 1e-3,
            timeout=TIMEOUT,
            on_round=on_round,
        )
        cohort_app = CohortApp(
            trainer, weighting="uniform", report_private_metrics=False, controls=controls
        )
        run_in_process(make_server_app(rounds), cohort_app, clients)
    num_bytes = 4 * sum(value.numel() for value in adapter.values())
    state_bytes = sum(value.nbytes for value in strategy.state_dict().values())
    # The first round warms up, and the last one is watched.
    return {
        "seconds_of_a_round": statistics.median(seconds[1:-1]),
        "of_these_aggregating": statistics.median(aggregating[1:-1]),
        # What a strategy remembers is made anew while the old is let go, key by key.
        "peak_adapters": (peak_bytes - state_bytes) / num_bytes,
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
        "--strategy", choices=SECTIONS, action="append", help="beside fedavg; all when absent"
    )
    chosen = parser.parse_args(arguments)
    names = dict.fromkeys(["fedavg", *(chosen.strategy or SECTIONS)])
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
