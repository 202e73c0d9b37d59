r"""Krum: the one update that stands closest to most others becomes the next adapter.

.. math:: s_i = \sum_{j \in N_i} \lVert u_i - u_j \rVert^2

over the :math:`n - f - 2` updates that are closest to :math:`u_i`, of :math:`n`, of which
:math:`f` may be malicious. The update of the lowest score is taken as it is.

Source: Blanchard et al. 2017, arXiv:1703.02757, section 4. Flower computes the distances of whole
adapters in single precision, as a difference of squares; between adapters that differ by a local
step that is mostly rounding, and it takes one more copy of every adapter.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from pkgllm.bounds import NotNegative
from pkgllm.federation.algorithm import Algorithm
from pkgllm.federation.messages import Update
from pkgllm.registry import RunSettings

if TYPE_CHECKING:
    from torch import Tensor

    from pkgllm.lm.adapter import AdapterState

_CHUNK = 1 << 16
"""Values of each client that are compared at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Krum(Algorithm):
    """The one update that is closest to the others (Blanchard et al. 2017). Needs equal weights."""

    citation: ClassVar[str] = "Blanchard et al. 2017, arXiv:1703.02757, section 4"
    linear: ClassVar[bool] = False
    equal_weights: ClassVar[bool] = True
    compares_values: ClassVar[bool] = True

    name: Literal["krum"] = "krum"
    num_malicious: NotNegative
    """Clients of a cohort that may send anything; ``mode.cohort_size`` must be at least twice as
    many and 3 more."""

    def aggregate(self, updates: Sequence[Update], adapter: AdapterState) -> AdapterState:
        """Return the selected update; its distances to others are those of steps."""
        distances = squared_distances([update.adapter for update in updates], adapter)
        return updates[closest_to_most(distances, self.num_malicious)].adapter

    def least_updates(self, cohort_size: int) -> int:
        """Return :math:`2 f + 3`: any of the missing ones may have been honest."""
        return 2 * self.num_malicious + 3

    def problems(self, run: RunSettings) -> Iterator[str]:
        """Yield a cohort that is too small for the number of malicious clients."""
        yield from Algorithm.problems(self, run)
        least = self.least_updates(run.mode.cohort_size)
        if run.mode.cohort_size < least:
            yield (
                "mode.strategy krum needs a mode.cohort_size of at least 2 * num_malicious + 3 = "
                f"{least}, got {run.mode.cohort_size}; raise it, or lower "
                "mode.strategy.num_malicious"
            )


def squared_distances(updates: Sequence[AdapterState], sent: AdapterState) -> Tensor:
    """Return the squared distances between updates. Shape ``(updates, updates)``, float64.

    Args:
        updates: Adapters.
        sent: The adapter from which they started; what they have in common is left out, so that
            it cannot round the differences away.
    """
    import torch

    products = torch.zeros(len(updates), len(updates), dtype=torch.float64)
    for key, start in sent.items():
        for begin in range(0, start.numel(), _CHUNK):
            part = slice(begin, begin + _CHUNK)
            values = torch.stack([update[key].reshape(-1)[part] for update in updates])
            steps = values.double() - start.reshape(-1)[part]
            products += steps @ steps.T
    norms = products.diagonal()
    return (norms[:, None] + norms - 2 * products).clamp(min=0)


def closest_to_most(distances: Tensor, num_malicious: int) -> int:
    """Return the index of the lowest score, the first of equals.

    Example:
        >>> import torch
        >>> far = torch.tensor([0.0, 1.0, 2.0, 90.0])
        >>> closest_to_most((far[:, None] - far) ** 2, num_malicious=1)
        0
    """
    num_closest = max(1, len(distances) - num_malicious - 2)
    others = distances.clone().fill_diagonal_(-1)
    # Each update is its own closest, which does not count.
    scores = others.sort(dim=1).values[:, 1 : num_closest + 1].sum(dim=1).tolist()
    return scores.index(min(scores))
