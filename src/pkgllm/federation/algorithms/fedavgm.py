r"""FedAvgM: averaging with momentum at the server.

.. math:: v \leftarrow \mu v - (\operatorname{mean}_i(y_i) - x), \qquad x \leftarrow x - \eta v

Source: Hsu et al. 2019, arXiv:1909.06335, section 4.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from pkgllm.bounds import PositiveFloat, Share
from pkgllm.federation.algorithm import Algorithm, RoundFacts

if TYPE_CHECKING:
    from pkgllm.federation.algorithm import State
    from pkgllm.lm.adapter import AdapterState


@dataclass(frozen=True, slots=True, kw_only=True)
class FedAvgM(Algorithm):
    """Averaging with momentum at the server (Hsu et al. 2019)."""

    citation: ClassVar[str] = "Hsu et al. 2019, arXiv:1909.06335, section 4.1"
    compares_values: ClassVar[bool] = True

    name: Literal["fedavgm"] = "fedavgm"
    server_learning_rate: PositiveFloat = 0.1
    """Factor of the step; steps that agree add up to
    ``server_learning_rate / (1 - server_momentum)`` of their mean."""
    server_momentum: Share = 0.9
    """Share of the last step that is taken again."""

    def init(self, adapter: AdapterState) -> State:
        """Return :math:`v = 0` as ``momentum``."""
        return {"momentum": {key: value.new_zeros(value.shape) for key, value in adapter.items()}}

    def step(
        self, state: State, adapter: AdapterState, mean: AdapterState, facts: RoundFacts
    ) -> tuple[State, AdapterState]:
        """Take the step of the momentum."""
        momentum, after = {}, {}
        for key, before in adapter.items():
            momentum[key] = self.server_momentum * state["momentum"][key] + (before - mean[key])
            after[key] = before - self.server_learning_rate * momentum[key]
        return {"momentum": momentum}, after
