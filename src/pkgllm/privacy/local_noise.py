"""Each client adds its share of the noise before it sends: nobody is trusted with a bare update.

A sum of independent Gaussians is Gaussian, so shares of variance ``z^2 C^2 / n`` from ``n`` clients
make up the noise that a trusted server would add. The shares are sized for the fewest updates that
a round may be released with. More of them noise the sum more, which costs accuracy.

How many came therefore shows in the loudness of the noise, exactly where an adapter has many
values. So the number must be no secret: cohorts have a fixed size, who takes part counts as known,
and what is hidden is what a client contributes. Neighbouring runs differ in one client's clipped
update being nothing (:attr:`~pkgllm.privacy.mechanisms.NeighboringRelation.ZERO_OUT_ONE`), which
moves the sum by at most ``C``; that cohorts are drawn strengthens nothing.

Whom that protects, and from whom: whoever sees only sums, where at least ``n`` clients add their
share as agreed, has the guarantee of noise multiplier ``z``. Whoever sees a single share, as a
server without secure aggregation does, has that of ``z / sqrt(n)``; with ``n = 1`` both are the
same. Clients that tell each other their shares take these out of the sum, for themselves.

Source: Dwork et al. 2006, "Our data, ourselves", which makes the noise of shares; Ponomareva et al.
2023, arXiv:2303.00654, for the neighbouring relations.
"""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pkgllm.errors import FederationError
from pkgllm.lm.adapter import AdapterState
from pkgllm.privacy.client_level import clip_update, step_from, update_vector
from pkgllm.privacy.clipping import GaussianSettings
from pkgllm.privacy.mechanisms import Mechanism, NeighboringRelation
from pkgllm.privacy.noise import add_gaussian


@dataclass(frozen=True, slots=True)
class LocalNoise:
    """How clients protect what they send; all of a round must agree on it.

    Raises:
        ValueError: If a value is out of range.

    Example:
        >>> LocalNoise(clip_norm=0.5, noise_multiplier=2.0, min_shares=4).share_std
        0.5
    """

    clip_norm: float
    """Longest contribution of a client, Euclidean."""
    noise_multiplier: float
    """Standard deviation of the noise of ``min_shares`` shares together, in clip norms."""
    min_shares: int
    """Fewest shares that a round may be released with."""

    def __post_init__(self) -> None:
        GaussianSettings(self.clip_norm, self.noise_multiplier, 1.0)
        if self.min_shares < 1:
            raise ValueError(f"min_shares must be at least 1, got {self.min_shares}")

    @property
    def mechanism(self) -> Mechanism:
        """What a client is charged for a round: what is seen of the sum.

        The price of the single share follows from it.
        """
        return Mechanism(
            self.noise_multiplier, 1.0, neighboring_relation=NeighboringRelation.ZERO_OUT_ONE
        )

    @property
    def share_std(self) -> float:
        """Standard deviation of each value of one share."""
        return self.noise_multiplier * self.clip_norm / math.sqrt(self.min_shares)


def noise_share(
    before: AdapterState,
    after: Mapping[str, Tensor],
    settings: LocalNoise,
    noise: np.random.Generator,
    *,
    trained: Collection[str] | None = None,
) -> AdapterState:
    """Return the adapter that a client sends: its clipped update with its share of the noise.

    An update with NaN or infinity in it becomes noise alone, like that of any other client.

    Args:
        before: The adapter that the client received.
        after: What it has trained.
        settings: Those of the whole round.
        noise: The client's own stream of this round.
        trained: Keys of the tensors that are trained, all if absent.

    Raises:
        ModelError: If the update does not fit the adapter.
    """
    keys = sorted(before if trained is None else trained)
    clipped, _ = clip_update(update_vector(before, after, keys), settings.clip_norm)
    add_gaussian(clipped, settings.share_std, noise)
    return step_from(before, clipped, keys)


def sum_shares(
    before: AdapterState,
    shares: Iterable[Mapping[str, Tensor]],
    *,
    expected_cohort: float,
    min_shares: int,
    trained: Collection[str] | None = None,
) -> AdapterState:
    """Return the adapter before the round plus the shares' sum over the expected cohort.

    Args:
        before: The adapter that the cohort received.
        shares: What came back, noise included, one in memory at a time.
        expected_cohort: What divides, whoever came.
        min_shares: The fewest shares that make up the noise.
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
    if count < min_shares:
        raise FederationError(
            f"the noise of a round is made up of at least {min_shares} shares, got {count}; the "
            "round is not released: lower mode.min_updates, which makes each share larger"
        )
    return step_from(before, total / expected_cohort, keys)
