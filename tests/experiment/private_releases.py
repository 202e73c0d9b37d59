"""What two clients release in one round with the unit example, as the server receives it.

The server notes the least and the greatest length of the updates, and of their cosines to the mean;
of two clients that is all. Each takes one step of SGD, so an update is the private gradient by the
learning rate.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from tiny_corpus import tiny_experiment

from pkgllm.config.schema import Experiment

CLIP_NORM = 0.05
RATE = 0.5
LOUD, QUIET = 50.0, 1e-4
"""Noise multipliers, of which the one drowns the gradient, and the gradient the other."""

CLIPPED = RATE * CLIP_NORM
"""Length of the update of one group whose gradient is clipped, without noise."""


def one_release(
    data: Path, base: Path, *, runtime: Mapping[str, Any], noise_multiplier: float
) -> Experiment:
    """A configuration of one round with two clients that hold one group each."""
    return tiny_experiment(
        data,
        base,
        adapter={"lora_rank": 8},
        groups={"max_groups": 1},
        objective={"name": "sft"},
        training={"optimizer": "sgd", "learning_rate": RATE},
        mode={"name": "federated", "rounds": 1, "cohort_size": 2, "runtime": runtime},
        privacy={
            "name": "example",
            "delta": 0.01,
            "clip_norm": CLIP_NORM,
            "noise_multiplier": noise_multiplier,
            "max_epsilon": 1e12,
            "expected_batch_size": 1,
        },
    )


def num_values(adapter: Path) -> int:
    """Entries of an adapter."""
    return sum(value.numel() for value in load_file(adapter / "adapter_model.safetensors").values())


def is_loud(norm: float, size: int, *, noise_multiplier: float = LOUD) -> bool:
    """Whether the length of an update is that of noise of the standard deviation, at 3e-7.

    The length of ``size`` normal values varies by ``1 / sqrt(2 size)`` of itself.
    """
    expected = CLIPPED * noise_multiplier * math.sqrt(size)
    return abs(norm / expected - 1) < 5 / math.sqrt(2 * size)
