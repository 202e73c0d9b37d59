"""Each client adds its share of the noise before it sends: nobody is trusted with a bare update.

A sum of independent Gaussians is Gaussian, so shares of variance ``z^2 C^2 / n`` from ``n`` clients
make up the noise that a trusted server would add. The shares are sized for the fewest updates that
a round may be released with, not for the expected cohort: a smaller cohort would be noised less
than was accounted for. A larger one is noised more, which costs accuracy and never privacy.

Whom that protects, and from whom: whoever sees only sums, where at least ``min_updates`` clients
add their share as promised, has the guarantee of noise multiplier ``z``. Whoever sees a single
share, as a server without secure aggregation does, has that of ``z / sqrt(min_updates)``; sampling
does not help against it, because it knows who took part.
"""

import math
from collections.abc import Collection, Iterable, Mapping

import numpy as np
import torch
from torch import Tensor

from pkgllm.errors import FederationError
from pkgllm.lm.adapter import AdapterState
from pkgllm.privacy.client_level import clip_update, step_from, update_vector
from pkgllm.privacy.clipping import GaussianSettings
from pkgllm.privacy.noise import add_gaussian


def noise_share(
    before: AdapterState,
    after: Mapping[str, Tensor],
    settings: GaussianSettings,
    noise: np.random.Generator,
    *,
    min_updates: int,
    trained: Collection[str] | None = None,
) -> AdapterState:
    """Return the adapter that a client sends: its clipped update with its share of the noise.

    Args:
        before: The adapter that the client received.
        after: What it has trained.
        settings: Those of the whole round.
        noise: The client's own stream of this round.
        min_updates: The fewest updates that the round may be released with.
        trained: Keys of the tensors that are trained, all if absent.

    Raises:
        ModelError: If the update does not fit the adapter.
        ValueError: If ``min_updates`` is below 1.
    """
    if min_updates < 1:
        raise ValueError(f"min_updates must be at least 1, got {min_updates}")
    keys = sorted(before if trained is None else trained)
    clipped, _ = clip_update(update_vector(before, after, keys), settings.clip_norm)
    add_gaussian(clipped, settings.noise_std / math.sqrt(min_updates), noise)
    return step_from(before, clipped, keys)


def sum_shares(
    before: AdapterState,
    shares: Iterable[Mapping[str, Tensor]],
    *,
    expected_cohort: float,
    min_updates: int,
    trained: Collection[str] | None = None,
) -> AdapterState:
    """Return the adapter before the round plus the shares' sum over the expected cohort.

    Args:
        before: The adapter that the cohort received.
        shares: What came back, noise included.
        expected_cohort: What divides, whoever came.
        min_updates: The fewest shares that make up the noise.
        trained: Keys of the tensors that are trained, all if absent.

    Raises:
        FederationError: If fewer shares came; the round must not be released.
        ModelError: If a share does not fit the adapter.
    """
    keys = sorted(before if trained is None else trained)
    total = torch.zeros(sum(before[key].numel() for key in keys), dtype=torch.float64)
    count = 0
    for after in shares:
        total += update_vector(before, after, keys)
        count += 1
    if count < min_updates:
        raise FederationError(
            f"the noise of a round is made up of at least {min_updates} shares, got {count}; the "
            "round is not released: lower mode.min_updates, which makes each share larger"
        )
    return step_from(before, total / expected_cohort, keys)
