r"""FedDyn: each client's objective changes with its rounds, so that all agree at the optimum.

A client minimises its own loss with a linear and a quadratic term,

.. math:: y_i \approx \arg\min_y f_i(y) - \langle g_i, y \rangle
    + \frac{\alpha}{2} \lVert y - x \rVert^2, \qquad g_i \leftarrow g_i - \alpha (y_i - x)

and the server corrects the mean by what the clients have drifted, of whom the cohort :math:`S` of
:math:`N` took part:

.. math:: h \leftarrow h - \alpha \frac{|S|}{N} \operatorname{mean}_S (y_i - x), \qquad
    x \leftarrow \operatorname{mean}_S (y_i) - \frac{h}{\alpha}

Where a client has reached its minimum, :math:`g_i` is the gradient :math:`\nabla f_i(y_i)`; at the
fixed point the gradients add up to :math:`h = 0`. A client sends its update alone.

Source: Acar et al. 2021, arXiv:2111.04263, algorithm 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from pkgllm.bounds import PositiveFloat
from pkgllm.federation.algorithm import Algorithm, LocalTerms, RoundFacts
from pkgllm.federation.messages import Broadcast, Instruction

if TYPE_CHECKING:
    from pkgllm.federation.algorithm import State
    from pkgllm.lm.adapter import AdapterState

_ALPHA = "feddyn-alpha"


@dataclass(frozen=True, slots=True, kw_only=True)
class FedDyn(Algorithm):
    """Averaging of clients whose objectives follow their gradients (Acar et al. 2021)."""

    citation: ClassVar[str] = "Acar et al. 2021, arXiv:2111.04263, algorithm 1"
    equal_weights: ClassVar[bool] = True
    compares_values: ClassVar[bool] = True
    client_state: ClassVar[bool] = True
    sends: ClassVar[tuple[str, ...]] = (_ALPHA,)

    name: Literal["feddyn"] = "feddyn"
    alpha: PositiveFloat = 0.1
    """How strongly a client is held to what it received, and how fast gradients are learned; about
    one divided by the local steps times their rate."""

    def init(self, adapter: AdapterState) -> State:
        """Return :math:`h = 0` as ``drift``."""
        return {"drift": {key: value.new_zeros(value.shape) for key, value in adapter.items()}}

    def broadcast(self, state: State) -> Broadcast:
        r"""Return :math:`\alpha`, so that all clients have the server's."""
        return Broadcast(numbers={_ALPHA: float(self.alpha)})

    def step(
        self, state: State, adapter: AdapterState, mean: AdapterState, facts: RoundFacts
    ) -> tuple[State, AdapterState]:
        """Renew the drift, and take it off the mean."""
        share = facts.cohort_size / facts.num_clients
        drift, after = {}, {}
        for key, before in adapter.items():
            drift[key] = state["drift"][key] - self.alpha * share * (mean[key] - before)
            after[key] = mean[key] - drift[key] / self.alpha
        return {"drift": drift}, after

    def terms(self, sent: Instruction, own: AdapterState) -> LocalTerms:
        r"""Return :math:`\alpha (y - x) - g_i`."""
        return LocalTerms(
            proximal_mu=sent.broadcast.numbers[_ALPHA],
            correction={key: -value for key, value in own.items()},
        )

    def renew(
        self, sent: Instruction, own: AdapterState, trained: AdapterState, local_steps: int
    ) -> AdapterState:
        """Return :math:`g_i` after the round."""
        alpha = sent.broadcast.numbers[_ALPHA]
        return {
            key: own[key] - alpha * (value - sent.adapter[key]) for key, value in trained.items()
        }
