"""Root mean square normalisation, forwards and backwards (Zhang and Sennrich 2019, 1910.07467)."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class RmsNorm:
    r"""Normalise the last dimension.

    .. math:: y = x \, r \, w, \quad r = (\tfrac1n \sum_i x_i^2 + \epsilon)^{-1/2}

    Source: Zhang and Sennrich 2019, arXiv:1910.07467, eq. 4.
    """

    weight: Tensor
    """Frozen. Shape ``(n,)``, or ``(heads, n)`` for rows by head."""
    epsilon: float

    @classmethod
    def of(cls, module: Any) -> "RmsNorm":
        """Return the normalisation of a module of transformers."""
        return cls(module.weight, float(module.variance_epsilon))

    def __call__(self, rows: Tensor) -> Tensor:
        """Return normalised rows, in their own type."""
        return self.forward(rows)[0]

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return normalised rows and ``r``, float32, which :meth:`backward` needs."""
        exact = rows.float()
        # On a CPU, two passes over the rows fewer than torch's own operator takes.
        squares = torch.linalg.vector_norm(exact, dim=-1, keepdim=True).square_()
        inverse = squares.div_(rows.shape[-1]).add_(self.epsilon).rsqrt_()
        return self.again(rows, inverse), inverse

    def again(self, rows: Tensor, inverse: Tensor) -> Tensor:
        """Return normalised rows, from the ``r`` that :meth:`forward` returned."""
        normed = rows.float() * inverse
        return normed.to(rows.dtype).mul_(self.weight)

    def backward(self, gradient: Tensor, rows: Tensor, inverse: Tensor) -> Tensor:
        r"""Return the gradient of the rows, in their type.

        .. math:: \partial x = r (g - x \, r^2 \, \overline{g x}), \quad g = w \, \partial y
        """
        weighted = gradient.float() * self.weight
        exact = rows.float()
        mean = (weighted * exact).mean(dim=-1, keepdim=True)
        weighted.addcmul_(exact, mean.mul_(inverse).mul_(inverse), value=-1)
        return weighted.mul_(inverse).to(rows.dtype)
