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

from pkgllm.bounds import PositiveFloat, Share
from pkgllm.federation.algorithm import Algorithm, RoundFacts
from pkgllm.federation.algorithms._adaptive import CITATION, adaptive_step, no_moments

if TYPE_CHECKING:
    from pkgllm.federation.algorithm import State
    from pkgllm.lm.adapter import AdapterState


@dataclass(frozen=True, slots=True, kw_only=True)
class FedAdam(Algorithm):
    """Adam at the server (Reddi et al. 2021)."""

    citation: ClassVar[str] = CITATION
    compares_values: ClassVar[bool] = True

    name: Literal["fedadam"] = "fedadam"
    server_learning_rate: PositiveFloat = 1e-3
    """Step size; as large as ``tau`` it is neutral: steps well below ``tau`` are taken as in
    ``fedavg``, larger ones are held back."""
    tau: PositiveFloat = 1e-3
    """Steps of a value well below it are not told apart."""
    beta_1: Share = 0.9
    """Decay of the mean of steps."""
    beta_2: Share = 0.99
    """Decay of the mean of squared steps."""

    def init(self, adapter: AdapterState) -> State:
        """Return the moments, 0."""
        return no_moments(adapter)

    def step(
        self, state: State, adapter: AdapterState, mean: AdapterState, facts: RoundFacts
    ) -> tuple[State, AdapterState]:
        """Take Adam's step."""
        power = facts.round_num + 1
        rate = self.server_learning_rate * math.sqrt(1 - self.beta_2**power)
        return adaptive_step(
            state,
            adapter,
            mean,
            rate=rate / (1 - self.beta_1**power),
            tau=self.tau,
            second_moment=lambda v, square: self.beta_2 * v + (1 - self.beta_2) * square,
            beta_1=self.beta_1,
            in_double=True,
        )
