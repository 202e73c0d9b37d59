r"""What the adaptive server optimisers share: the mean step of the clients is a pseudo-gradient.

.. math:: \Delta &= \operatorname{mean}_i(y_i) - x, \qquad
        m \leftarrow \beta_1 m + (1 - \beta_1) \Delta, \qquad v \leftarrow V(v, \Delta^2) \\
    x &\leftarrow x + \eta \frac{m}{\sqrt{v} + \tau}

Source: Reddi et al. 2021, arXiv:2003.00295, algorithm 2. As in Flower, and other than there,
:math:`v` starts at 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from pkgllm.federation.algorithm import State
    from pkgllm.lm.adapter import AdapterState

CITATION = "Reddi et al. 2021, arXiv:2003.00295, algorithm 2"


def no_moments(adapter: AdapterState) -> State:
    """Return both moments as they are before the first round: 0."""
    return {
        name: {key: value.new_zeros(value.shape) for key, value in adapter.items()} for name in "mv"
    }


def adaptive_step(
    state: State,
    adapter: AdapterState,
    mean: AdapterState,
    *,
    rate: float,
    tau: float,
    second_moment: Callable[[Tensor, Tensor], Tensor],
    beta_1: float = 0.0,
    in_double: bool = False,
) -> tuple[State, AdapterState]:
    r"""Return the moments after a round, and the next adapter.

    Args:
        state: The moments before, as ``m`` and ``v``.
        adapter: :math:`x`.
        mean: Of the clients' adapters.
        rate: :math:`\eta`.
        tau: :math:`\tau`.
        second_moment: :math:`V`.
        beta_1: :math:`\beta_1`.
        in_double: Whether the quotient is computed in double precision.
    """
    first, second, after = {}, {}, {}
    for key, before in adapter.items():
        step = mean[key] - before
        first[key] = beta_1 * state["m"][key] + (1 - beta_1) * step
        second[key] = second_moment(state["v"][key], step.square())
        numerator = first[key].double() if in_double else first[key]
        after[key] = (before + rate * numerator / (second[key].sqrt() + tau)).float()
    return {"m": first, "v": second}, after
