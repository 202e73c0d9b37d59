"""A clip norm that follows a quantile of the updates' lengths, privately.

Source: Andrew et al. 2021, arXiv:1905.03871, algorithm 1 and theorem 1. The share of updates within
the clip norm is estimated with noise of its own, and the clip norm moves geometrically until that
share is the one that was asked for.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np


def update_noise_multiplier(noise_multiplier: float, count_noise_std: float) -> float:
    r"""Return the updates' noise multiplier when the count is released along with them.

    Each client counts for 1/2 or -1/2, so the count's sensitivity is 1/2 and its noise multiplier
    :math:`2\sigma_b`. Updates and count together are one Gaussian mechanism of multiplier ``z`` for

    .. math:: z_\Delta = \bigl(z^{-2} - (2\sigma_b)^{-2}\bigr)^{-1/2}

    Args:
        noise_multiplier: Of both together, which is accounted for; positive.
        count_noise_std: :math:`\sigma_b`.

    Raises:
        ValueError: If the count alone would spend the whole of it.

    Example:
        >>> round(update_noise_multiplier(1.0, 5.0), 6)
        1.005038
    """
    if not 0 < noise_multiplier < 2 * count_noise_std:
        raise ValueError(
            "the count's noise must be above half of the noise multiplier, which must be positive; "
            f"got count_noise_std {count_noise_std} for noise_multiplier {noise_multiplier}"
        )
    return 1 / math.sqrt(noise_multiplier**-2 - (2 * count_noise_std) ** -2)


@dataclass(frozen=True, slots=True)
class AdaptiveClip:
    """The clip norm of a round, and how the next one's follows.

    Raises:
        ValueError: If a value is out of range.
    """

    clip_norm: float
    """Of the round at hand; positive."""
    target_quantile: float = 0.5
    """Share of updates that should be within it."""
    learning_rate: float = 0.2
    """How fast its logarithm moves."""
    count_noise_std: float = 5.0
    """Noise of the count; the paper advises a twentieth of the expected cohort."""

    def __post_init__(self) -> None:
        for name in ("clip_norm", "learning_rate", "count_noise_std"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if not 0 <= self.target_quantile <= 1:
            raise ValueError(f"target_quantile must be from 0 to 1, got {self.target_quantile}")

    def after(
        self,
        *,
        num_updates: int,
        num_within: int,
        expected_cohort: float,
        noise: np.random.Generator,
    ) -> "AdaptiveClip":
        """Return the next round's clip norm. What comes back is private, what goes in is not.

        Args:
            num_updates: Updates that came.
            num_within: Those within the clip norm.
            expected_cohort: What divides the noisy count, whoever came.
            noise: A stream of its own.
        """
        centred = num_within - num_updates / 2 + self.count_noise_std * noise.standard_normal()
        share = centred / expected_cohort + 0.5
        step = self.learning_rate * (share - self.target_quantile)
        return replace(self, clip_norm=self.clip_norm * math.exp(-step))

    def state_dict(self) -> dict[str, float]:
        """Return what a checkpoint must keep."""
        return {"clip_norm": self.clip_norm}

    def with_state(self, state: Mapping[str, float]) -> "AdaptiveClip":
        """Return these settings with the clip norm of a checkpoint."""
        return replace(self, clip_norm=float(state["clip_norm"]))
