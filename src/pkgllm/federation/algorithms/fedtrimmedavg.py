"""FedTrimmedAvg: the mean of each value without its largest and smallest.

Source: Yin et al. 2018, arXiv:1803.01498, definition 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from annotated_types import Ge, Lt

from pkgllm.federation.algorithm import Aggregate, Algorithm
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
    """Share of the cohort that is left out at each end, rounded down to clients; as many are left
    out where some of the cohort failed."""

    def aggregate(self, updates: Sequence[Update], adapter: AdapterState) -> AdapterState:
        """Return the means of what is left."""
        return self.aggregator(len(updates))(updates, adapter)

    def aggregator(self, cohort_size: int) -> Aggregate:
        """Return the mean that leaves out as many as of a whole cohort."""
        return partial(_trimmed_mean, num_trimmed=int(self.trimmed_share * cohort_size))

    def least_updates(self, cohort_size: int) -> int:
        """Return one more than are left out."""
        return 2 * int(self.trimmed_share * cohort_size) + 1


def _trimmed_mean(
    updates: Sequence[Update], adapter: AdapterState, *, num_trimmed: int
) -> AdapterState:
    from pkgllm.federation.means import sorted_values

    return {
        key: values[num_trimmed : len(updates) - num_trimmed].mean(dim=0)
        for key, values in sorted_values(updates, adapter)
    }
