"""What the mechanisms of both privacy units have in common: settings and the clip factor."""

import math
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class GaussianSettings:
    """How strongly a sum of clipped contributions is noised, and what divides it.

    Raises:
        ValueError: If a value is out of range.
    """

    clip_norm: float
    """Longest contribution of one unit, Euclidean."""
    noise_multiplier: float
    """Standard deviation of the sum's noise, in clip norms; 0 adds none and protects nobody."""
    expected_units: float
    """Units that are drawn on average. It divides, so that the number drawn does not show."""

    def __post_init__(self) -> None:
        for name in ("clip_norm", "expected_units"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if not (math.isfinite(self.noise_multiplier) and self.noise_multiplier >= 0):
            raise ValueError(f"noise_multiplier must be 0 or more, got {self.noise_multiplier}")

    @property
    def noise_std(self) -> float:
        """Of each value of the sum."""
        return self.noise_multiplier * self.clip_norm

    @property
    def released_std(self) -> float:
        """Of each value of what is released, the sum over :attr:`expected_units`."""
        return self.noise_std / self.expected_units


def clip_factors(norms: Tensor, clip_norm: float) -> Tensor:
    """Return what shortens each contribution to the clip norm.

    A contribution of length 0 stays, and one whose length is NaN or infinite gets the factor 0:
    nobody can then make more of it than of any other, and no error reveals that it was there.

    Args:
        norms: Any shape, float64.
        clip_norm: Positive.

    Example:
        >>> import torch
        >>> norms = torch.tensor([0.0, 1.0, 4.0, float("inf"), float("nan")])
        >>> clip_factors(norms, 2.0).tolist()
        [1.0, 1.0, 0.5, 0.0, 0.0]
    """
    shortened = clip_norm / norms.clamp(min=clip_norm)
    return shortened.where(norms.isfinite(), 0)
