r"""FedYogi: Yogi at the server; the second moment moves by a bounded amount.

.. math:: m &\leftarrow \beta_1 m + (1 - \beta_1) \Delta \\
    v &\leftarrow v - (1 - \beta_2) \Delta^2 \operatorname{sign}(v - \Delta^2) \\
    x &\leftarrow x + \eta \frac{m}{\sqrt{v} + \tau}

Source: Reddi et al. 2021, arXiv:2003.00295, algorithm 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pkgllm.federation.algorithms._adaptive import WithMomentum

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class FedYogi(WithMomentum):
    """Yogi at the server (Reddi et al. 2021)."""

    name: Literal["fedyogi"] = "fedyogi"

    def second_moment(self, v: Tensor, square: Tensor) -> Tensor:
        """Return the second moment, moved towards the squared step by a bounded amount."""
        return v - (1 - self.beta_2) * square * (v - square).sign()
