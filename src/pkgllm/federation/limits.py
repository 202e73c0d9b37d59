r"""How much one client's update may count: its weight, and its length beside those of the others.

A weight and an update are what a client claims, so the server bounds both before it aggregates:

.. math:: w_i \leftarrow \min(w_i, r_w \operatorname{median}_j w_j), \qquad
    \lVert y_i - x \rVert \le \min(b, r_u \operatorname{median}_j \lVert y_j - x \rVert)

An update that is longer is left out. It is not scaled down, since what is many times as long as the
others' is no measurement of the same thing. As long as fewer than half of the updates are hostile,
a median lies between honest values.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING

from pkgllm.federation.messages import Update

if TYPE_CHECKING:
    from pkgllm.lm.adapter import AdapterState


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateLimits:
    """What the server lets one update do."""

    equal_weights: bool = True
    """Whether every update has the weight 1, whatever its client claims."""
    max_weight_ratio: float = math.inf
    """Largest weight, in medians of the cohort's."""
    max_norm: float = math.inf
    """Largest Euclidean length of an update."""
    max_norm_ratio: float = math.inf
    """Largest length, in medians of those of the cohort's updates that are not zero."""

    def apply(
        self, updates: Mapping[str, Update], before: AdapterState
    ) -> tuple[dict[str, Update], dict[str, str]]:
        """Return the updates that may be aggregated with their weights, and why others may not.

        Args:
            updates: By client; usable ones.
            before: What the cohort received.
        """
        kept, faults = self._of_usual_length(updates, before)
        if self.equal_weights:
            return {client: replace(update, weight=1.0) for client, update in kept.items()}, faults
        most = self.max_weight_ratio * median([update.weight for update in kept.values()] or [1.0])
        return {
            client: replace(update, weight=min(update.weight, most))
            for client, update in kept.items()
        }, faults

    def _of_usual_length(
        self, updates: Mapping[str, Update], before: AdapterState
    ) -> tuple[dict[str, Update], dict[str, str]]:
        if math.isinf(self.max_norm) and math.isinf(self.max_norm_ratio):
            return dict(updates), {}
        from pkgllm.lm.adapter import update_norm

        norms = {client: update_norm(before, one.adapter) for client, one in updates.items()}
        moved = [norm for norm in norms.values() if norm > 0]
        usual = median(moved) if moved else 0.0
        faults = {}
        for client, norm in norms.items():
            if norm > self.max_norm:
                faults[client] = f"update of length {norm:.3g}, the bound is {self.max_norm:.3g}"
            elif norm > self.max_norm_ratio * usual:
                faults[client] = (
                    f"update of length {norm:.3g}, more than {self.max_norm_ratio:g} times the "
                    f"cohort's median of {usual:.3g}"
                )
        return {client: one for client, one in updates.items() if client not in faults}, faults


def weight_shares(updates: Mapping[str, Update]) -> dict[str, float]:
    """Return each client's share of the sum of weights.

    Example:
        >>> one, three = (Update(adapter={}, weight=weight) for weight in (1.0, 3.0))
        >>> weight_shares({"a": one, "b": three})
        {'a': 0.25, 'b': 0.75}
    """
    total = sum(update.weight for update in updates.values())
    return {client: update.weight / total for client, update in updates.items()}
