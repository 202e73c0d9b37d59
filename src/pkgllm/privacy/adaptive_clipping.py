"""A clip norm that follows a quantile of the updates' lengths, privately.

Source: Andrew et al. 2021, arXiv:1905.03871, algorithm 1 and theorem 1. The share of updates within
the clip norm is estimated with noise of its own, and the clip norm moves geometrically until that
share is the one that was asked for.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pkgllm.bounds import PositiveFloat, Probability

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptiveClipping:
    """A clip norm that follows a quantile of the updates' norms (Andrew et al. 2021)."""

    target_quantile: Probability = 0.5
    """Share of the updates that shall not be clipped."""
    learning_rate: PositiveFloat = 0.2
    """By how much the clip norm's logarithm changes for each unit of the share's error."""
    count_noise_std: PositiveFloat
    """Standard deviation of the noise on the number of updates within the clip norm; the paper
    advises a twentieth of the expected cohort. It is part of the budget: the updates get as much
    more noise as makes up for it."""

    def leaves_budget(self, noise_multiplier: float) -> bool:
        """Return whether the count alone spends less than a noise multiplier allows."""
        return 2 * self.count_noise_std > noise_multiplier

    def update_noise_multiplier(self, noise_multiplier: float) -> float:
        r"""Return the updates' noise multiplier when the count is released along with them.

        Each client counts for 1/2 or -1/2, so the count's sensitivity is 1/2 and its noise
        multiplier :math:`2\sigma_b`. Updates and count together are one Gaussian mechanism of
        multiplier ``z`` for

        .. math:: z_\Delta = \bigl(z^{-2} - (2\sigma_b)^{-2}\bigr)^{-1/2}

        Args:
            noise_multiplier: Of both together, which is accounted for; positive.

        Raises:
            ValueError: If the count alone would spend the whole of it.

        Example:
            >>> clipping = AdaptiveClipping(count_noise_std=5.0)
            >>> round(clipping.update_noise_multiplier(1.0), 6)
            1.005038
        """
        if not (noise_multiplier > 0 and self.leaves_budget(noise_multiplier)):
            raise ValueError(
                "the count's noise must be above half of the noise multiplier, which must be "
                f"positive; got count_noise_std {self.count_noise_std} for noise_multiplier "
                f"{noise_multiplier}"
            )
        return 1 / math.sqrt(noise_multiplier**-2 - (2 * self.count_noise_std) ** -2)

    def next_clip_norm(
        self,
        clip_norm: float,
        *,
        num_updates: int,
        num_within: int,
        expected_cohort: float,
        noise: "np.random.Generator",
    ) -> float:
        """Return the next round's clip norm, which is private; the counts are not.

        Args:
            clip_norm: Of the round at hand; positive.
            num_updates: Updates that came.
            num_within: Those within the clip norm.
            expected_cohort: What divides the noisy count, whoever came.
            noise: A stream of its own.
        """
        centred = num_within - num_updates / 2 + self.count_noise_std * noise.standard_normal()
        share = centred / expected_cohort + 0.5
        return clip_norm * math.exp(-self.learning_rate * (share - self.target_quantile))
