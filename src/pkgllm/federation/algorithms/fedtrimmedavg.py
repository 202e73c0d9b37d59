"""FedTrimmedAvg: the mean of each value without its largest and smallest.

Source: Yin et al. 2018, arXiv:1803.01498, definition 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from annotated_types import Ge, Lt

from pkgllm.federation.algorithm import Algorithm
from pkgllm.federation.messages import Update

if TYPE_CHECKING:
    from pkgllm.lm.adapter import AdapterState


@dataclass(frozen=True, slots=True, kw_only=True)
class FedTrimmedAvg(Algorithm):
    """The mean of each value without its extremes (Yin et al. 2018). Needs equal weights."""

    citation: ClassVar[str] = "Yin et al. 2018, arXiv:1803.01498, definition 2"
    linear: ClassVar[bool] = False
    equal_weights: ClassVar[bool] = True
    compares_values: ClassVar[bool] = True

    name: Literal["fedtrimmedavg"] = "fedtrimmedavg"
    trimmed_share: Annotated[float, Ge(0), Lt(0.5)] = 0.2
    """Share of the cohort that is left out at each end, rounded down to clients."""

    def aggregate(self, updates: Sequence[Update], adapter: AdapterState) -> AdapterState:
        """Return the means of what is left."""
        from pkgllm.federation.means import sorted_values

        cut = int(self.trimmed_share * len(updates))
        return {
            key: values[cut : len(updates) - cut].mean(dim=0)
            for key, values in sorted_values(updates, adapter)
        }
