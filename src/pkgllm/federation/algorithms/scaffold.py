r"""SCAFFOLD: control variates take the drift out of local steps.

A client takes :math:`K` steps of plain gradient descent on corrected gradients, then renews its
control variate (option II):

.. math:: y \leftarrow y - \eta_l (g - c_i + c), \qquad
    c_i^+ = c_i - c + \frac{x - y}{K \eta_l}

and the server averages over the cohort :math:`S` of the :math:`N` clients:

.. math:: x \leftarrow x + \eta_g \operatorname{mean}_S (y_i - x), \qquad
    c \leftarrow c + \frac{|S|}{N} \operatorname{mean}_S (c_i^+ - c_i)

Since :math:`c_i^+ - c_i = -c - (y - x) / (K \eta_l)`, the server computes the second mean from the
first, and a client sends its update alone: half the traffic of the paper's algorithm, and :math:`c`
is known from what was sent anyway.

Source: Karimireddy et al. 2020, arXiv:1910.06378, algorithm 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from pkgllm.bounds import PositiveFloat
from pkgllm.federation.algorithm import Algorithm, LocalTerms, RoundFacts
from pkgllm.federation.messages import Broadcast, Instruction
from pkgllm.registry import RunSettings

if TYPE_CHECKING:
    from pkgllm.federation.algorithm import State
    from pkgllm.lm.adapter import AdapterState

_CONTROL = "control"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaffold(Algorithm):
    """Averaging of clients whose drift control variates correct (Karimireddy et al. 2020).

    Needs ``training.optimizer`` sgd, no weight decay and equal weights; sends twice as much down
    as ``fedavg``, and as much up.
    """

    citation: ClassVar[str] = "Karimireddy et al. 2020, arXiv:1910.06378, algorithm 1"
    equal_weights: ClassVar[bool] = True
    compares_values: ClassVar[bool] = True
    client_state: ClassVar[bool] = True
    sends: ClassVar[tuple[str, ...]] = (_CONTROL,)

    name: Literal["scaffold"] = "scaffold"
    server_learning_rate: PositiveFloat = 1.0
    """Factor of the mean step."""

    def init(self, adapter: AdapterState) -> State:
        """Return :math:`c = 0` as ``control``."""
        return {_CONTROL: {key: value.new_zeros(value.shape) for key, value in adapter.items()}}

    def broadcast(self, state: State) -> Broadcast:
        """Return :math:`c`."""
        return Broadcast(tensors={_CONTROL: dict(state[_CONTROL])})

    def step(
        self, state: State, adapter: AdapterState, mean: AdapterState, facts: RoundFacts
    ) -> tuple[State, AdapterState]:
        """Take the server's step on the adapter and on the mean control variate."""
        share = facts.cohort_size / facts.num_clients
        per_step = 1 / (facts.local_steps * facts.learning_rate)
        control, after = {}, {}
        for key, before in adapter.items():
            step, old = mean[key] - before, state[_CONTROL][key]
            control[key] = old - share * (old + per_step * step)
            after[key] = before + self.server_learning_rate * step
        return {_CONTROL: control}, after

    def terms(self, sent: Instruction, own: AdapterState) -> LocalTerms:
        """Return :math:`c - c_i`, which is added to each gradient."""
        control = sent.broadcast.tensors[_CONTROL]
        return LocalTerms(correction={key: value - own[key] for key, value in control.items()})

    def renew(
        self, sent: Instruction, own: AdapterState, trained: AdapterState, local_steps: int
    ) -> AdapterState:
        """Return :math:`c_i^+`."""
        per_step = 1 / (local_steps * sent.learning_rate)
        control = sent.broadcast.tensors[_CONTROL]
        return {
            key: (sent.adapter[key] - value) * per_step - (control[key] - own[key])
            for key, value in trained.items()
        }

    def problems(self, run: RunSettings) -> Iterator[str]:
        """Yield what local training must be for control variates to be mean gradients."""
        # Without arguments, super() does not work in a dataclass with slots.
        yield from Algorithm.problems(self, run)
        if run.training.optimizer != "sgd":
            yield (
                "mode.strategy scaffold takes a client's mean gradient from the length of its "
                "steps, which holds for plain gradient descent only; set training.optimizer to "
                f"sgd, and a training.learning_rate that fits it, got {run.training.optimizer}"
            )
        if run.training.weight_decay:
            yield (
                "mode.strategy scaffold would take weight decay for a gradient; set "
                f"training.weight_decay to 0, got {run.training.weight_decay:g}"
            )
