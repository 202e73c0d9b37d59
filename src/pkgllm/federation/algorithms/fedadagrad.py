r"""FedAdagrad: Adagrad at the server.

.. math:: v \leftarrow v + \Delta^2, \qquad x \leftarrow x + \eta \frac{\Delta}{\sqrt{v} + \tau}

Source: Reddi et al. 2021, arXiv:2003.00295, algorithm 2, with :math:`\beta_1 = 0`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pkgllm.federation.algorithms._adaptive import Adaptive

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class FedAdagrad(Adaptive):
    """Adagrad at the server (Reddi et al. 2021)."""

    name: Literal["fedadagrad"] = "fedadagrad"

    def second_moment(self, v: Tensor, square: Tensor) -> Tensor:
        """Return the sum of squared steps."""
        return v + square
