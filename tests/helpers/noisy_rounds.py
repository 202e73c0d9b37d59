"""Clients, an adapter of many values, and what tells whether noise has its standard deviation."""

import math

import numpy as np
import torch
from scipy.stats import chi2  # type: ignore[import-untyped]

from pkgllm.federation.algorithms import ALGORITHMS
from pkgllm.lm.adapter import AdapterState

CLIENTS = {f"p{index:02}": float(index) for index in range(20)}
"""The points of quadratic clients."""
SIZE = (60, 50)
KEYS = ("layer.lora_A", "layer.lora_B")
NUM_VALUES = len(KEYS) * math.prod(SIZE)

TAKING_MEANS = [algorithm() for algorithm in ALGORITHMS.own() if algorithm.linear]


def big_adapter(value: float = 0.0) -> AdapterState:
    """An adapter that is the same everywhere."""
    return {key: torch.full(SIZE, value) for key in KEYS}


def values(adapter: AdapterState) -> np.ndarray:
    """All values in one row, in the order of their keys."""
    return np.concatenate([adapter[key].numpy().ravel() for key in sorted(adapter)]).astype(float)


def fits(residuals: np.ndarray, std: float) -> bool:
    """Whether values are as far from 0 as those of this standard deviation, at 1e-6."""
    low, high = chi2.ppf([5e-7, 1 - 5e-7], len(residuals))
    return bool(low <= (residuals**2).sum() / std**2 <= high)


def clipped(client: str, clip_norm: float) -> float:
    """Each value of a client's update: a tenth of the way to its point, or the clip norm."""
    return min(0.1 * CLIENTS[client], clip_norm / math.sqrt(NUM_VALUES))
