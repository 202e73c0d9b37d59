r"""FedAdam: Adam at the server.

.. math:: m &\leftarrow \beta_1 m + (1 - \beta_1) \Delta, \qquad
        v \leftarrow \beta_2 v + (1 - \beta_2) \Delta^2 \\
    x &\leftarrow x + \eta \frac{\sqrt{1 - \beta_2^{t+1}}}{1 - \beta_1^{t+1}}
        \frac{m}{\sqrt{v} + \tau}

in round :math:`t`. Source: Reddi et al. 2021, arXiv:2003.00295, algorithm 2; the bias correction,
and that the quotient is computed in double precision, are Flower's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from pkgllm.federation.algorithms._adaptive import WithMomentum

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class FedAdam(WithMomentum):
    """Adam at the server (Reddi et al. 2021)."""

    in_double: ClassVar[bool] = True

    name: Literal["fedadam"] = "fedadam"

    def second_moment(self, v: Tensor, square: Tensor) -> Tensor:
        """Return the moving mean of squared steps."""
        return self.beta_2 * v + (1 - self.beta_2) * square

    def rate(self, round_num: int) -> float:
        """Return the step size with Adam's bias correction."""
        power = round_num + 1
        rate = self.server_learning_rate * math.sqrt(1 - self.beta_2**power)
        return rate / (1 - self.beta_1**power)
