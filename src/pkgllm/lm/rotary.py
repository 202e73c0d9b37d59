"""Rotary position embedding (Su et al. 2021, arXiv:2104.09864, eq. 34), forwards and backwards.

Coordinate ``i`` of a head is paired with coordinate ``i + head_dim / 2``, as in transformers.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Rotation:
    """Rotates the heads of each row by its position, and may scale them."""

    cos: Tensor
    """Shape ``(rows, 1 or heads, head_dim)``."""
    sin: Tensor
    """With the signs of the halves. As ``cos``."""

    @classmethod
    def at(cls, positions: Tensor, rotary: Any, like: Tensor) -> "Rotation":
        """Return the rotation to positions by a model's own table of angles.

        Args:
            positions: From 0. Shape ``(rows,)``, int64.
            rotary: The model's module.
            like: A tensor of the type and device to return.
        """
        cos, sin = (angle[0][:, None] for angle in rotary(like, positions[None]))
        half = sin.shape[-1] // 2
        return cls(cos, torch.cat((-sin[..., :half], sin[..., half:]), -1))

    def scaled(self, factor: Tensor | float) -> "Rotation":
        """Return a rotation that multiplies by a factor as well."""
        return Rotation(self.cos * factor, self.sin * factor)

    def __call__(self, heads: Tensor) -> Tensor:
        """Rotate heads of shape ``(rows, heads, head_dim)``."""
        return torch.addcmul(heads * self.cos, _swap_halves(heads), self.sin)

    def backward(self, gradient: Tensor) -> Tensor:
        """Return the gradient of the heads from that of the rotated heads."""
        return torch.addcmul(_swap_halves(gradient * self.sin), gradient, self.cos)


def _swap_halves(heads: Tensor) -> Tensor:
    return heads.roll(heads.shape[-1] // 2, dims=-1)
