"""FedMedian: the median of each value over the cohort.

Source: Yin et al. 2018, arXiv:1803.01498, definition 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from pkgllm.federation.algorithm import Algorithm
from pkgllm.federation.messages import Update

if TYPE_CHECKING:
    from pkgllm.lm.adapter import AdapterState


@dataclass(frozen=True, slots=True, kw_only=True)
class FedMedian(Algorithm):
    """The median of each value over the cohort (Yin et al. 2018). Needs equal weights."""

    citation: ClassVar[str] = "Yin et al. 2018, arXiv:1803.01498, definition 1"
    linear: ClassVar[bool] = False
    equal_weights: ClassVar[bool] = True
    compares_values: ClassVar[bool] = True

    name: Literal["fedmedian"] = "fedmedian"

    def aggregate(self, updates: Sequence[Update], adapter: AdapterState) -> AdapterState:
        """Return the medians; of an even number the mean of the two in the middle."""
        from pkgllm.federation.means import sorted_values

        low, high = (len(updates) - 1) // 2, len(updates) // 2
        return {
            key: values[low : high + 1].mean(dim=0)
            for key, values in sorted_values(updates, adapter)
        }
