"""Privacy unit ``client``: the noisy mean of a cohort's updates.

Source: McMahan et al. 2018, arXiv:1710.06963, algorithm 1 with uniform weights and a fixed
denominator. A server that does this is trusted with the updates; what it publishes is private.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pkgllm.errors import ModelError
from pkgllm.lm.adapter import AdapterState
from pkgllm.privacy.clipping import GaussianSettings, clip_factors
from pkgllm.privacy.noise import add_gaussian, poisson_sample


@dataclass(frozen=True, slots=True)
class NoisyMean:
    """What came of a cohort's updates."""

    adapter: AdapterState
    """The adapter before the round, plus the noisy mean of the updates. Private: any server
    strategy may take it as the single update of a round, and everybody may see it."""
    num_updates: int
    """How many were summed. Not private: for adaptive clipping alone."""
    num_within: int
    """How many were within the clip norm. Not private either."""


def poisson_cohort(
    clients: Collection[str], sampling_probability: float, noise: np.random.Generator
) -> tuple[str, ...]:
    """Draw a cohort to which each client belongs by itself, with the same probability.

    It may be empty; the round then releases noise, and is accounted for like any other.

    Args:
        clients: All who take part; their order does not matter.
        sampling_probability: Above 0, at most 1.
        noise: A secret stream.
    """
    ordered = sorted(clients)
    taken = poisson_sample(len(ordered), sampling_probability, noise)
    return tuple(ordered[place] for place in taken)


def update_vector(
    before: Mapping[str, Tensor], after: Mapping[str, Tensor], trained: Collection[str]
) -> Tensor:
    """Return a client's update, ``after - before``, as one vector of the trained tensors.

    Args:
        before: The adapter that the client received.
        after: The adapter that it sends back.
        trained: Keys of the tensors that are trained; the others stay as they were.

    Returns:
        Shape ``(values,)``, float64, in the order of the sorted keys.

    Raises:
        ModelError: If a tensor is missing or has another shape.
    """
    parts = []
    for key in sorted(trained):
        if key not in after or after[key].shape != before[key].shape:
            shape = tuple(after[key].shape) if key in after else "nothing"
            raise ModelError(
                f"a client's update does not fit the adapter: {key} must have shape "
                f"{tuple(before[key].shape)}, got {shape}"
            )
        parts.append((after[key].double() - before[key].double()).reshape(-1).cpu())
    return torch.cat(parts)


def clip_update(update: Tensor, clip_norm: float) -> tuple[Tensor, bool]:
    """Shorten an update to the clip norm; one with NaN or infinity in it becomes 0.

    Args:
        update: Shape ``(values,)``, float64.
        clip_norm: Positive.

    Returns:
        The update, and whether it was within the clip norm as it came.
    """
    norm = torch.linalg.vector_norm(update)
    factor = clip_factors(norm, clip_norm)
    within = bool(norm <= clip_norm)
    return (update * factor if bool(norm.isfinite()) else torch.zeros_like(update)), within


def privatise_updates(
    before: AdapterState,
    updates: Iterable[Mapping[str, Tensor]],
    settings: GaussianSettings,
    noise: np.random.Generator,
    *,
    trained: Collection[str] | None = None,
) -> NoisyMean:
    r"""Clip each client's whole update, sum, add noise, divide by the expected cohort.

    .. math:: \frac1m\Bigl(\sum_k u_k\min(1, C/\lVert u_k\rVert)+\mathcal N(0, z^2C^2 I)\Bigr)

    A client that failed is not among the updates and so adds 0; the denominator stays.

    Args:
        before: The adapter that the cohort received.
        updates: The adapters that come back, one in memory at a time.
        settings: Its ``expected_units`` is the expected cohort :math:`m`.
        noise: The server's stream of this round.
        trained: Keys of the tensors that are trained, all if absent. A frozen tensor gets neither
            update nor noise.

    Raises:
        ModelError: If an update does not fit the adapter.
    """
    keys = sorted(before if trained is None else trained)
    total = torch.zeros(sum(before[key].numel() for key in keys), dtype=torch.float64)
    num_updates = num_within = 0
    for after in updates:
        clipped, within = clip_update(update_vector(before, after, keys), settings.clip_norm)
        total += clipped
        num_updates += 1
        num_within += within
    add_gaussian(total, settings.noise_std, noise)
    return NoisyMean(
        step_from(before, total / settings.expected_units, keys), num_updates, num_within
    )


def step_from(before: AdapterState, update: Tensor, trained: Collection[str]) -> AdapterState:
    """Return the adapter that an update leads to; the inverse of :func:`update_vector`."""
    adapter = {key: value.clone() for key, value in before.items()}
    start = 0
    for key in sorted(trained):
        end = start + before[key].numel()
        adapter[key] = (before[key].double() + update[start:end].view_as(before[key])).float()
        start = end
    return adapter
