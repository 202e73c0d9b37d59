"""The mechanisms in one shape, so that every audit case is written once and drives all."""

from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from pkgllm.lm.adapter import AdapterState
from pkgllm.privacy.client_level import NoisyMean, privatise_updates
from pkgllm.privacy.clipping import GaussianSettings
from pkgllm.privacy.example_level import private_step_gradient
from pkgllm.privacy.local_noise import LocalNoise, noise_share, sum_shares

_PART = 64
"""Contributions that are handed over at once, so that a mechanism has to add up parts."""


class Release(Protocol):
    """Makes what is published of the contributions of the units that were drawn."""

    def __call__(self, contributions: Tensor, noise: np.random.Generator) -> Tensor:
        """Return the noisy mean.

        Args:
            contributions: Not yet clipped. Shape ``(units, values)``, float32.
            noise: The stream of this release.

        Returns:
            Shape ``(values,)``.
        """
        ...


def example_release(
    settings: GaussianSettings, step: Callable[..., Tensor] = private_step_gradient
) -> Release:
    """Return the release of unit ``example``: contributions are per-example gradients.

    Args:
        settings: Of the mechanism.
        step: In place of the real one, to see a fault being caught.
    """

    def release(contributions: Tensor, noise: np.random.Generator) -> Tensor:
        return step(
            torch.split(contributions, _PART), settings, noise, num_values=contributions.shape[1]
        )

    return release


def client_release(
    settings: GaussianSettings, privatise: Callable[..., NoisyMean] = privatise_updates
) -> Release:
    """Return the release of unit ``client``: contributions are the clients' updates.

    Args:
        settings: Of the mechanism.
        privatise: In place of the real one, to see a fault being caught.
    """

    def release(contributions: Tensor, noise: np.random.Generator) -> Tensor:
        before = _adapter(torch.full((contributions.shape[1],), 0.5))
        mean = privatise(before, _adapters(contributions), settings, noise)
        return _vector(mean.adapter).double() - 0.5

    return release


class MakeShare(Protocol):
    """Makes what a client sends of what it has trained."""

    def __call__(
        self,
        before: AdapterState,
        after: AdapterState,
        settings: LocalNoise,
        noise: np.random.Generator,
    ) -> AdapterState:
        """Return the clipped update, with the client's share of the noise; see ``noise_share``."""
        ...


def local_release(
    settings: GaussianSettings, num_shares: int, share: MakeShare = noise_share
) -> Release:
    """Return the release of unit ``client`` whose noise is made up of the clients' shares.

    As many shares come as make up the noise. Those of clients that contribute nothing are noise
    alone, so that a contribution which is left out is one that is zeroed out.

    Args:
        settings: Of the mechanism.
        num_shares: At least as many as there are contributions.
        share: In place of the real one, to see a fault being caught.
    """
    local = LocalNoise(settings.clip_norm, settings.noise_multiplier, num_shares)

    def release(contributions: Tensor, noise: np.random.Generator) -> Tensor:
        before = _adapter(torch.full((contributions.shape[1],), 0.5))
        silent = torch.zeros(num_shares - len(contributions), contributions.shape[1])
        adapter = sum_shares(
            before,
            (share(before, after, local, noise) for after in _adapters(contributions, silent)),
            expected_cohort=settings.expected_units,
            min_shares=num_shares,
        )
        return _vector(adapter).double() - 0.5

    return release


def single_share(
    settings: LocalNoise,
    contribution: Tensor,
    noise: np.random.Generator,
    share: MakeShare = noise_share,
) -> Tensor:
    """Return what one client sends of a contribution, as the server sees it.

    Args:
        settings: Of the round.
        contribution: Not yet clipped. Shape ``(values,)``, float32.
        noise: The client's stream.
        share: In place of the real one, to see a fault being caught.
    """
    before = _adapter(torch.full_like(contribution, 0.5))
    return _vector(share(before, _adapter(0.5 + contribution), settings, noise)).double() - 0.5


def _adapters(*contributions: Tensor) -> Iterator[AdapterState]:
    return (_adapter(0.5 + row) for rows in contributions for row in rows)


def _adapter(vector: Tensor) -> AdapterState:
    # Two tensors, so that a clip of each by itself would show.
    middle = len(vector) // 2
    return {"layer.lora_A.weight": vector[:middle], "layer.lora_B.weight": vector[middle:]}


def _vector(adapter: AdapterState) -> Tensor:
    return torch.cat([adapter[key].reshape(-1) for key in sorted(adapter)])
