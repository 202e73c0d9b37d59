r"""FedYogi: Yogi at the server; the second moment moves by a bounded amount.

.. math:: m &\leftarrow \beta_1 m + (1 - \beta_1) \Delta \\
    v &\leftarrow v - (1 - \beta_2) \Delta^2 \operatorname{sign}(v - \Delta^2) \\
    x &\leftarrow x + \eta \frac{m}{\sqrt{v} + \tau}

Source: Reddi et al. 2021, arXiv:2003.00295, algorithm 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from pkgllm.bounds import PositiveFloat, Share
from pkgllm.federation.algorithm import Algorithm, RoundFacts
from pkgllm.federation.algorithms._adaptive import CITATION, adaptive_step, no_moments

if TYPE_CHECKING:
    from pkgllm.federation.algorithm import State
    from pkgllm.lm.adapter import AdapterState


@dataclass(frozen=True, slots=True, kw_only=True)
class FedYogi(Algorithm):
    """Yogi at the server (Reddi et al. 2021)."""

    citation: ClassVar[str] = CITATION
    compares_values: ClassVar[bool] = True

    name: Literal["fedyogi"] = "fedyogi"
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
        """Take Yogi's step."""
        return adaptive_step(
            state,
            adapter,
            mean,
            rate=self.server_learning_rate,
            tau=self.tau,
            second_moment=lambda v, square: v - (1 - self.beta_2) * square * (v - square).sign(),
            beta_1=self.beta_1,
        )
