r"""FedProx: averaging of clients that are held to what they received.

A client minimises :math:`f_i(y) + \frac{\mu}{2} \lVert y - x \rVert^2`; the server's side is that
of FedAvg.

Source: Li et al. 2020, arXiv:1812.06127, algorithm 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from pkgllm.bounds import NotNegativeFloat
from pkgllm.federation.algorithm import Algorithm, LocalTerms
from pkgllm.federation.messages import Broadcast, Instruction

if TYPE_CHECKING:
    from pkgllm.federation.algorithm import State
    from pkgllm.lm.adapter import AdapterState

_MU = "proximal-mu"
"""As Flower calls it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FedProx(Algorithm):
    """Averaging of clients that are held to what they received (Li et al. 2020)."""

    citation: ClassVar[str] = "Li et al. 2020, arXiv:1812.06127, algorithm 2"
    sends: ClassVar[tuple[str, ...]] = (_MU,)

    name: Literal["fedprox"] = "fedprox"
    proximal_mu: NotNegativeFloat = 0.01
    """How strongly; 0 is ``fedavg``."""

    def broadcast(self, state: State) -> Broadcast:
        r"""Return :math:`\mu`, so that all clients have the server's."""
        return Broadcast(numbers={_MU: float(self.proximal_mu)})

    def terms(self, sent: Instruction, own: AdapterState) -> LocalTerms:
        """Return the proximal term."""
        return LocalTerms(proximal_mu=sent.broadcast.numbers[_MU])
