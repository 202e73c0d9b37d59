"""Measure local training: TRL and our three engines, on the same clients.

A client has two prompts with 16 completions each, and takes its optimiser steps of a round over all
of them. The ways take turns over blocks of clients: TRL, the engine `trl` and the sequential engine
train a block's clients one by one, the lane engine each time the whole cohort. TRL by itself has
the fastest of the settings that were tried, the engine `trl` one batch for each step. Our other
engines keep the reference's log-probabilities from round to round, so they are measured in a first
round, which computes them, and in a later one; TRL computes them in each.

Speed is examples a second, the median over clients or cohorts, and its ratios are of the lane
engine's to the other's. `example_gradients_vs_plain` is how many times longer the gradient of every
example takes than that of the batch. `memory_vs_trl` is the peak memory of the process in the lane
engine's turns to that in TRL's, for the objective where it is largest. `max_loss_difference` is
over all clients and ways; of a client with several steps their mean is compared.

Where trl is not installed the other ways are measured without it.

usage: python scripts/bench_training.py [--json] [--only kto|dpo|examples] [--clients N] [--steps N]
                                        [--preset cpu|tiny|gpu] [--trl KEY=VALUE]...
"""

import argparse
import importlib.util
import json
import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from typing import Any

# TRL reports every trainer that is made, unless this stands there before transformers is read.
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

import torch

from pkgllm.lm.adapter import AdapterState, adapter_state
from pkgllm.lm.base_model import load_base_model
from pkgllm.lm.lanes.decoder import LaneDecoder
from pkgllm.training.cohort import LaneTrainer
from training_bench.gpu import lane_use, random_qwen3
from training_bench.our_ways import (
    example_cost,
    lane_trainer,
    make_policy,
    sequential_trainer,
    trl_engine,
)
from training_bench.race import Way, race
from training_bench.workload import (
    OBJECTIVES,
    ObjectiveName,
    Preset,
    Workload,
    count_tokens,
    make_workload,
    used_adapter,
)

TRL, ENGINE, SEQUENTIAL, LANES = "TRL", "engine trl", "sequential", "lanes"
PARTS = (*OBJECTIVES, "examples")
PRESETS = {
    "cpu": Preset(
        partial(load_base_model, "qwen3-mini", device="cpu"), num_clients=32, start_std=0.05
    ),
    "tiny": Preset(
        partial(load_base_model, "base-tiny", device="cpu"), num_clients=8, start_std=0.05
    ),
    "gpu": Preset(partial(random_qwen3, "cuda"), num_clients=64, start_std=0.02),
}
COLUMNS = {
    "examples/s": "examples_per_second",
    "in later rounds": "examples_per_second_later_rounds",
    "peak GB": "peak_gigabytes",
    "above its start": "peak_gigabytes_above_start",
    "mean loss": "mean_loss",
    "adapter's difference": "max_adapter_difference",
    "update's difference, share": "update_difference_share",
}
_CPU_BYTES = 2 << 30
_GPU_SHARE = 0.6
_MATRIX_SIZE = 8192


class Bench:
    """A workload with what every measurement of it needs.

    Args:
        preset: What to draw.
        num_clients: In place of the preset's.
        steps: Optimiser steps of a client in a round.
        trl_settings: Of TRL's configuration, in place of the fastest found.
    """

    def __init__(
        self,
        preset: Preset,
        *,
        num_clients: int | None,
        steps: int,
        trl_settings: Mapping[str, Any],
    ) -> None:
        self.workload: Workload = make_workload(preset, num_clients or preset.num_clients)
        self.steps = steps
        self._trl_settings = trl_settings
        self.policy = make_policy(self.workload)
        self.decoder = LaneDecoder(self.policy)
        self.start: AdapterState = used_adapter(adapter_state(self.policy), preset.start_std)
        self.device = self.decoder.device
        self.memory_bytes = _CPU_BYTES
        if self.device.type == "cuda":
            self.memory_bytes = int(_GPU_SHARE * torch.cuda.mem_get_info(self.device)[0])

    def objective(self, name: ObjectiveName) -> dict[str, Any]:
        """Measure every way with one objective."""
        steps, objective = self.steps, OBJECTIVES[name]
        ways = {
            SEQUENTIAL: Way(
                partial(sequential_trainer, self.workload, self.policy, objective, steps=steps),
                self.device,
            ),
            LANES: Way(partial(self.lane_trainer, name), self.device, together=True),
        }
        making: list[float] = []
        if importlib.util.find_spec("trl"):
            from training_bench.trl_way import TrlTrainer

            base = self.workload.base
            trainer = TrlTrainer(
                base.model,
                base.tokenizer,
                self.workload.groups,
                name,
                steps=steps,
                settings=self._trl_settings,
            )
            making = trainer.making_seconds
            engine = partial(trl_engine, self.workload, self.policy, objective, steps=steps)
            ways = {
                TRL: Way(lambda: trainer, self.device, remembers=False),
                ENGINE: Way(engine, self.device, remembers=False),
                **ways,
            }
        else:
            print("trl is not installed: the other ways are measured without it", file=sys.stderr)
        largest = race(ways, self.workload.clients, self.start)
        summaries = {
            name: way.summary(num_clients=len(self.workload.groups), steps=steps)
            for name, way in ways.items()
        }
        if TRL in ways:
            # The first trainer was not measured.
            share = sum(making[1:]) / sum(ways[TRL].first_round.seconds)
            summaries[TRL]["share_of_making_trainers"] = share
        return {"max_loss_difference": largest, "ways": summaries}

    def lane_trainer(self, name: ObjectiveName) -> LaneTrainer:
        """Return the lane engine for an objective."""
        return lane_trainer(
            self.workload,
            self.decoder,
            OBJECTIVES[name],
            steps=self.steps,
            memory_bytes=self.memory_bytes,
        )

    def examples(self) -> dict[str, float]:
        """Measure the gradients of single examples."""
        return asdict(
            example_cost(self.workload, self.decoder, self.start, memory_bytes=self.memory_bytes)
        )

    def conditions(self) -> dict[str, Any]:
        """Return what was measured on what."""
        groups = [group for client in self.workload.groups.values() for group in client]
        prompt, completion = count_tokens(groups)
        return {
            "base_model": self.workload.base.name,
            "clients": len(self.workload.groups),
            "steps": self.steps,
            "tokens_of_a_prompt": prompt,
            "tokens_of_a_completion": completion,
            "device": str(self.device),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }


def measure(bench: Bench, parts: Sequence[str]) -> dict[str, Any]:
    """Measure parts of the benchmark, and put their ratios first."""
    objectives: dict[str, Any] = {
        name: bench.objective(name) for name in OBJECTIVES if name in parts
    }
    measured: dict[str, Any] = {"objectives": objectives}
    ratios = speed_ratios(objectives, "examples_per_second")
    if "examples" in parts:
        measured["examples"] = bench.examples()
        ratios["example_gradients_vs_plain"] = measured["examples"]["ratio"]
    memory = [
        found["ways"][LANES]["peak_gigabytes"] / found["ways"][TRL]["peak_gigabytes"]
        for found in objectives.values()
        if TRL in found["ways"]
    ]
    if memory:
        ratios["memory_vs_trl"] = max(memory)
    head: dict[str, Any] = {"ratios": ratios}
    if objectives:
        head["ratios_later_rounds"] = speed_ratios(objectives, "examples_per_second_later_rounds")
        head["max_loss_difference"] = max(
            found["max_loss_difference"] for found in objectives.values()
        )
    if objectives and bench.device.type == "cuda":
        measured["gpu"] = lane_use(
            bench.lane_trainer("kto"),
            bench.workload.base.model,
            bench.workload.clients,
            bench.start,
            matrix_size=_MATRIX_SIZE,
        )
    return {**head, **measured, "conditions": bench.conditions()}


def speed_ratios(objectives: Mapping[str, Any], speed: str) -> dict[str, float]:
    """Return how many times faster the lane engine is than each other way."""
    return {
        f"{name}_vs_{way.lower()}": found["ways"][LANES][speed] / of_way[speed]
        for name, found in objectives.items()
        for way, of_way in found["ways"].items()
        if way != LANES
    }


def print_tables(measured: Mapping[str, Any]) -> None:
    """Print what was measured in Markdown."""
    print(f"    {shlex.join(['python', *sys.argv])}\n")
    print(f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores\n")
    rows = {
        f"{objective}, {way}": found
        for objective, raced in measured["objectives"].items()
        for way, found in raced["ways"].items()
    }
    if rows:
        print(f"| way | {' | '.join(COLUMNS)} |\n|{'---|' * (1 + len(COLUMNS))}")
    for name, way in rows.items():
        print(f"| {name} | {' | '.join(f'{way[key]:.3g}' for key in COLUMNS.values())} |")
    print("\n| what | measured |\n|---|---|")
    rest = {
        name: {key: value for key, value in way.items() if key not in COLUMNS.values()}
        for name, way in rows.items()
    }
    for name, value in flat({**measured, "objectives": rest}):
        print(f"| {name} | {value:.3g} |" if isinstance(value, float) else f"| {name} | {value} |")


def flat(measured: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of a tree with their paths."""
    for key, value in measured.items():
        name = f"{before}{key}".replace("_", " ")
        if isinstance(value, Mapping):
            yield from flat(value, f"{name}: ")
        else:
            yield name, value


def trl_setting(text: str) -> tuple[str, Any]:
    """Read KEY=VALUE; the value is JSON, or else a string."""
    key, found, value = text.partition("=")
    if not found:
        raise argparse.ArgumentTypeError(f"must be KEY=VALUE, got {text!r}")
    try:
        return key, json.loads(value)
    except json.JSONDecodeError:
        return key, value


def at_least_one(text: str) -> int:
    """Read a count."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return int(text)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print tables, or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true", help="print one object instead")
    parser.add_argument("--only", choices=PARTS, help="measure one part")
    parser.add_argument("--clients", type=at_least_one, help="how many; 32 on a CPU, 64 on a GPU")
    parser.add_argument("--steps", type=at_least_one, default=1, help="of a client in a round")
    parser.add_argument("--preset", choices=PRESETS, default="cpu")
    parser.add_argument(
        "--trl",
        type=trl_setting,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a setting of TRL's, in place of the fastest found",
    )
    chosen = parser.parse_args(arguments)
    preset = PRESETS[chosen.preset]
    if chosen.preset == "gpu" and not torch.cuda.is_available():
        print("there is no GPU: this is the CPU part", file=sys.stderr)
        preset = PRESETS["cpu"]
    bench = Bench(
        preset, num_clients=chosen.clients, steps=chosen.steps, trl_settings=dict(chosen.trl)
    )
    measured = measure(bench, [chosen.only] if chosen.only else PARTS)
    if chosen.json:
        print(json.dumps(measured))
    else:
        print_tables(measured)


if __name__ == "__main__":
    main()
