r"""What the adaptive server optimisers share: the mean step of the clients is a pseudo-gradient.

.. math:: \Delta &= \operatorname{mean}_i(y_i) - x, \qquad
        m \leftarrow \beta_1 m + (1 - \beta_1) \Delta, \qquad v \leftarrow V(v, \Delta^2) \\
    x &\leftarrow x + \eta \frac{m}{\sqrt{v} + \tau}

Source: Reddi et al. 2021, arXiv:2003.00295, algorithm 2. As in Flower, and other than there,
:math:`v` starts at 0.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pkgllm.bounds import PositiveFloat, Share
from pkgllm.federation.algorithm import Algorithm, RoundFacts

if TYPE_CHECKING:
    from torch import Tensor

    from pkgllm.federation.algorithm import State
    from pkgllm.lm.adapter import AdapterState


@dataclass(frozen=True, slots=True, kw_only=True)
class Adaptive(Algorithm):
    """An adaptive optimiser at the server; a subclass says how the second moment moves."""

    citation: ClassVar[str] = "Reddi et al. 2021, arXiv:2003.00295, algorithm 2"
    compares_values: ClassVar[bool] = True
    in_double: ClassVar[bool] = False
    """Whether the quotient is computed in double precision."""

    server_learning_rate: PositiveFloat = 1e-3
    """Step size; as large as ``tau`` it is neutral: steps well below ``tau`` are taken as in
    ``fedavg``, larger ones are held back."""
    tau: PositiveFloat = 1e-3
    """Steps of a value well below it are not told apart."""

    @abstractmethod
    def second_moment(self, v: Tensor, square: Tensor) -> Tensor:
        r"""Return :math:`V(v, \Delta^2)`, elementwise."""

    def decay(self) -> float:
        r"""Return :math:`\beta_1`."""
        return 0.0

    def rate(self, round_num: int) -> float:
        r"""Return :math:`\eta` of a round."""
        return self.server_learning_rate

    def init(self, adapter: AdapterState) -> State:
        """Return both moments as they are before the first round: 0."""
        return {
            name: {key: value.new_zeros(value.shape) for key, value in adapter.items()}
            for name in "mv"
        }

    def step(
        self, state: State, adapter: AdapterState, mean: AdapterState, facts: RoundFacts
    ) -> tuple[State, AdapterState]:
        """Return the moments after a round, and the next adapter."""
        beta_1, rate = self.decay(), self.rate(facts.round_num)
        first, second, after = {}, {}, {}
        for key, before in adapter.items():
            step = mean[key] - before
            first[key] = beta_1 * state["m"][key] + (1 - beta_1) * step
            second[key] = self.second_moment(state["v"][key], step.square())
            numerator = first[key].double() if self.in_double else first[key]
            after[key] = (before + rate * numerator / (second[key].sqrt() + self.tau)).float()
        return {"m": first, "v": second}, after


@dataclass(frozen=True, slots=True, kw_only=True)
class WithMomentum(Adaptive):
    """An adaptive optimiser whose moments are moving means."""

    beta_1: Share = 0.9
    """Decay of the mean of steps."""
    beta_2: Share = 0.99
    """Decay of the mean of squared steps."""

    def decay(self) -> float:
        r"""Return :math:`\beta_1`."""
        return self.beta_1
