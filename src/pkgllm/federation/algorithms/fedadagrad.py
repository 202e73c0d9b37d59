r"""FedAdagrad: Adagrad at the server.

.. math:: v \leftarrow v + \Delta^2, \qquad x \leftarrow x + \eta \frac{\Delta}{\sqrt{v} + \tau}

Source: Reddi et al. 2021, arXiv:2003.00295, algorithm 2, with :math:`\beta_1 = 0`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from pkgllm.bounds import PositiveFloat
from pkgllm.federation.algorithm import Algorithm, RoundFacts
from pkgllm.federation.algorithms._adaptive import CITATION, adaptive_step, no_moments

if TYPE_CHECKING:
    from pkgllm.federation.algorithm import State
    from pkgllm.lm.adapter import AdapterState


@dataclass(frozen=True, slots=True, kw_only=True)
class FedAdagrad(Algorithm):
    """Adagrad at the server (Reddi et al. 2021)."""

    citation: ClassVar[str] = CITATION
    compares_values: ClassVar[bool] = True

    name: Literal["fedadagrad"] = "fedadagrad"
    server_learning_rate: PositiveFloat = 1e-3
    """Step size; as large as ``tau`` it is neutral: steps well below ``tau`` are taken as in
    ``fedavg``, larger ones are held back."""
    tau: PositiveFloat = 1e-3
    """Steps of a value well below it are not told apart."""

    def init(self, adapter: AdapterState) -> State:
        """Return the moments, 0."""
        return no_moments(adapter)

    def step(
        self, state: State, adapter: AdapterState, mean: AdapterState, facts: RoundFacts
    ) -> tuple[State, AdapterState]:
        """Take Adagrad's step."""
        return adaptive_step(
            state,
            adapter,
            mean,
            rate=self.server_learning_rate,
            tau=self.tau,
            second_moment=lambda v, square: v + square,
        )
