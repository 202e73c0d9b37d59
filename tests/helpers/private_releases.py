"""What two clients release in a round with the unit example, as the server receives it.

The server notes the least and the greatest length of the updates, and of their cosines to the mean;
of two clients that is all. Each takes one step of SGD, so an update by the learning rate is the
private gradient, and each has one group, so without noise that is as long as the clip norm.
"""

import math
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from helpers.tiny_corpus import tiny_experiment
from pkgllm.config.schema import Experiment

CLIP_NORM = 0.05
LOUD, QUIET = 50.0, 1e-4
"""Noise multipliers, of which the one drowns the gradient, and the gradient the other."""


def one_release(data: Path, base: Path, *, noise_multiplier: float, **mode: Any) -> Experiment:
    """A configuration of one round with two clients that hold one group each."""
    return tiny_experiment(
        data,
        base,
        clients={"unseen_share": 0.0},
        adapter={"lora_rank": 8},
        groups={"max_groups": 1},
        objective={"name": "sft"},
        training={"optimizer": "sgd", "learning_rate": 0.5},
        mode={"name": "federated", "rounds": 1, "cohort_size": 2, **mode},
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


def gradient_norms(record: dict[str, Any]) -> tuple[float, float]:
    """The least and the greatest length of a private gradient in a round, from its metrics."""
    norms, rate = record["update_norms"], record["learning_rate"]
    return norms["min"] / rate, norms["max"] / rate


def is_loud(norm: float, size: int, *, noise_multiplier: float = LOUD) -> bool:
    """Whether a gradient is as long as noise of the standard deviation is, at 6e-7.

    The length of ``size`` normal values varies by ``1 / sqrt(2 size)`` of itself.
    """
    expected = CLIP_NORM * noise_multiplier * math.sqrt(size)
    return abs(norm / expected - 1) < 5 / math.sqrt(2 * size)
