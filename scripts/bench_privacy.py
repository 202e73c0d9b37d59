"""Measure what privacy costs a round: of lane training with each unit, and without.

A cohort trains for one round on the workload of `bench_training.py` with KTO whose baseline is
fixed at 0. `plain` is the lane engine; `example` trains every client with clipped and noisy steps
that draw as many groups as a plain step has; `client` is a plain round whose updates the server
then clips, sums and noises. The three take turns, after a round each in which the reference
log-probabilities are computed. `example_vs_plain` and `client_vs_plain` are medians over the turns
of a turn's seconds to its plain ones; the client's are the plain ones with the server's added, so
that its ratio does not hold the difference of two rounds of training.

usage: python scripts/bench_privacy.py [--json] [--clients N] [--steps N] [--rounds N]
                                       [--preset cpu|gpu]
"""

import argparse
import json
import os
import platform
import shlex
import statistics
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

import torch

from pkgllm.lm.adapter import AdapterState, adapter_state
from pkgllm.lm.base_model import load_base_model
from pkgllm.lm.lanes.decoder import LaneDecoder
from pkgllm.privacy.client_level import privatise_updates
from pkgllm.privacy.clipping import GaussianSettings
from pkgllm.privacy.mechanisms import Mechanism
from pkgllm.privacy.noise import secure
from pkgllm.training.local import CohortTrainer, TrainedClient
from training_bench.gpu import random_qwen3
from training_bench.measure import Clock
from training_bench.our_ways import lane_trainer, make_policy, private_trainer
from training_bench.workload import (
    APO_ZERO,
    GROUPS_PER_CLIENT,
    LEARNING_RATE,
    Preset,
    make_workload,
    used_adapter,
)

PLAIN, EXAMPLE, CLIENT = "plain", "example", "client"
PRESETS = {
    "cpu": Preset(
        partial(load_base_model, "qwen3-mini", device="cpu"), num_clients=32, start_std=0.05
    ),
    "gpu": Preset(partial(random_qwen3, "cuda"), num_clients=64, start_std=0.02),
}
_CPU_BYTES = 2 << 30
_GPU_SHARE = 0.6
_CLIP_NORM, _NOISE_MULTIPLIER = 0.1, 1.0


def charge_nothing(round_num: int, released: Mapping[str, Mechanism]) -> None:
    """Stand in for a ledger, whose file is written once a round."""


def measure(
    preset: Preset, *, num_clients: int | None, steps: int, num_rounds: int
) -> dict[str, Any]:
    """Take turns, and return seconds and their ratios."""
    workload = make_workload(preset, num_clients or preset.num_clients)
    policy = make_policy(workload)
    decoder = LaneDecoder(policy)
    start = used_adapter(adapter_state(policy), preset.start_std)
    memory_bytes = _CPU_BYTES
    if decoder.device.type == "cuda":
        memory_bytes = int(_GPU_SHARE * torch.cuda.mem_get_info(decoder.device)[0])
    ways: dict[str, CohortTrainer] = {
        PLAIN: lane_trainer(workload, decoder, APO_ZERO, steps=steps, memory_bytes=memory_bytes),
        EXAMPLE: private_trainer(
            workload,
            decoder,
            APO_ZERO,
            steps=steps,
            settings=GaussianSettings(_CLIP_NORM, _NOISE_MULTIPLIER, GROUPS_PER_CLIENT),
            charge=charge_nothing,
            memory_bytes=memory_bytes,
        ),
    }
    clocks = {name: Clock(decoder.device) for name in (*ways, CLIENT)}

    def trained(name: str, round_num: int) -> list[AdapterState]:
        found = ways[name](
            dict.fromkeys(workload.clients, start),
            round_num=round_num,
            learning_rate=LEARNING_RATE,
        )
        failed = [done for done in found.values() if not isinstance(done, TrainedClient)]
        if failed:
            raise failed[0]
        return [done.adapter for done in found.values() if isinstance(done, TrainedClient)]

    for name in ways:
        trained(name, 0)
    settings = GaussianSettings(_CLIP_NORM, _NOISE_MULTIPLIER, len(workload.groups))
    for round_num in range(1, num_rounds + 1):
        updates = clocks[PLAIN].time(partial(trained, PLAIN, round_num))
        clocks[EXAMPLE].time(partial(trained, EXAMPLE, round_num))
        noise = secure().generator("noise", round_num)
        clocks[CLIENT].time(partial(privatise_updates, start, updates, settings, noise))
    plain = clocks[PLAIN].seconds
    ratios = {
        f"{EXAMPLE}_vs_{PLAIN}": _median_ratio(clocks[EXAMPLE].seconds, plain),
        f"{CLIENT}_vs_{PLAIN}": 1 + _median_ratio(clocks[CLIENT].seconds, plain),
    }
    return {
        "ratios": ratios,
        "seconds": {
            PLAIN: statistics.median(plain),
            EXAMPLE: statistics.median(clocks[EXAMPLE].seconds),
            "sum, noise and mean of updates": statistics.median(clocks[CLIENT].seconds),
        },
        "conditions": {
            "base_model": workload.base.name,
            "clients": len(workload.groups),
            "groups of a step": GROUPS_PER_CLIENT,
            "steps": steps,
            "rounds": num_rounds,
            "values of the adapter": decoder.layout.num_values,
            "device": str(decoder.device),
            "machine": platform.machine(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        },
    }


def _median_ratio(seconds: Sequence[float], plain: Sequence[float]) -> float:
    return statistics.median(one / other for one, other in zip(seconds, plain, strict=True))


def print_tables(measured: Mapping[str, Mapping[str, Any]]) -> None:
    """Print what was measured in Markdown."""
    print(f"    {shlex.join(['python', *sys.argv])}\n")
    print(f"{datetime.now(UTC):%Y-%m-%d}\n\n| what | measured |\n|---|---|")
    for part, values in measured.items():
        for key, value in values.items():
            shown = f"{value:.4g}" if isinstance(value, float) else value
            print(f"| {part}: {key.replace('_', ' ')} | {shown} |")


def at_least_one(text: str) -> int:
    """Read a count."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return int(text)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table, or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true", help="print one object instead")
    parser.add_argument("--clients", type=at_least_one, help="how many; 32 on a CPU, 64 on a GPU")
    parser.add_argument("--steps", type=at_least_one, default=1, help="of a client in a round")
    parser.add_argument("--rounds", type=at_least_one, default=5, help="turns of each way")
    parser.add_argument("--preset", choices=PRESETS, default="cpu")
    chosen = parser.parse_args(arguments)
    if chosen.preset == "gpu" and not torch.cuda.is_available():
        parser.error("--preset gpu needs a GPU, and torch finds none; use cpu")
    measured = measure(
        PRESETS[chosen.preset],
        num_clients=chosen.clients,
        steps=chosen.steps,
        num_rounds=chosen.rounds,
    )
    if chosen.json:
        print(json.dumps(measured))
    else:
        print_tables(measured)


if __name__ == "__main__":
    main()
