r"""What a strategy of the server adds to a client's gradient, after it is clipped.

.. math::
    g \leftarrow \operatorname{clip}(g) + \mu (y - x) + (c - c_i)

with the adapter :math:`y`, the adapter :math:`x` that the client received, FedProx's :math:`\mu`
and SCAFFOLD's correction. Neither depends on the client's examples of this step, so noise that
hides an example belongs before them, and they need not be clipped.

Sources: Li et al. 2020, arXiv:1812.06127, eq. 2 (FedProx); Karimireddy et al. 2020,
arXiv:1910.06378, eq. 3 (SCAFFOLD).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class LaneTerms:
    """The terms of stacked adapters: one row is one lane."""

    proximal_mus: Tensor | None
    """Shape ``(lanes, 1)``; None where all are 0."""
    starts: Tensor | None
    """What each lane received. Shape ``(lanes, values)``; None where there is no proximal term."""
    corrections: Tensor | None
    """Shape ``(lanes, values)``; None where no lane has one."""

    @classmethod
    def of(
        cls, values: Tensor, proximal_mus: Sequence[float], corrections: Sequence[Tensor | None]
    ) -> "LaneTerms":
        """Return the terms of lanes that have not moved yet.

        Args:
            values: Of the lanes, which is copied where it is needed. Shape ``(lanes, values)``.
            proximal_mus: Of each lane.
            corrections: Of each lane, shape ``(values,)``; None for none.
        """
        proximal = any(proximal_mus)
        stacked = None
        if any(correction is not None for correction in corrections):
            stacked = torch.zeros_like(values)
            for row, correction in zip(stacked, corrections, strict=True):
                if correction is not None:
                    row.copy_(correction)
        return cls(
            proximal_mus=values.new_tensor(proximal_mus)[:, None] if proximal else None,
            starts=values.clone() if proximal else None,
            corrections=stacked,
        )

    def add_to(self, gradients: Tensor, values: Tensor, first: int) -> None:
        """Add them to the gradients of the first lanes, in place.

        Args:
            gradients: Shape ``(lanes, trained values)``; fewer lanes where the last ones
                have no more steps.
            values: As ``gradients``.
            first: Where the trained values begin.
        """
        now = slice(len(gradients))
        if self.proximal_mus is not None and self.starts is not None:
            gradients.addcmul_(values - self.starts[now, first:], self.proximal_mus[now])
        if self.corrections is not None:
            gradients.add_(self.corrections[now, first:])


def add_terms(
    parameters: Mapping[str, Tensor],
    starts: Mapping[str, Tensor],
    *,
    proximal_mu: float,
    correction: Mapping[str, Tensor] | None,
) -> None:
    """Add one client's terms to its gradients, in place.

    Args:
        parameters: What is trained, with gradients, by PEFT's key names.
        starts: The adapter that the client received.
        proximal_mu: Weight of the proximal term.
        correction: As the adapter; None for none.
    """
    with torch.no_grad():
        for key, parameter in parameters.items():
            gradient = parameter.grad
            if gradient is None:
                continue
            if proximal_mu:
                gradient.add_(parameter - starts[key].to(parameter.device), alpha=proximal_mu)
            if correction is not None:
                gradient.add_(correction[key].to(gradient.device))
