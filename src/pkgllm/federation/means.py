"""Means over a cohort: of adapters, of single values in order, and of metrics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from pkgllm.federation.messages import Update

if TYPE_CHECKING:
    from torch import Tensor

    from pkgllm.lm.adapter import AdapterState


def weighted_mean(updates: Sequence[Update]) -> AdapterState:
    r"""Return :math:`\sum_i \frac{w_i}{\sum_j w_j} y_i` for each value, summed in the order given.

    Example:
        >>> import torch
        >>> low, high = ({"x": torch.tensor([value])} for value in (2.0, 6.0))
        >>> weighted_mean([Update(adapter=low, weight=1.0), Update(adapter=high, weight=3.0)])
        {'x': tensor([5.])}
    """
    total_weight = sum(update.weight for update in updates)
    mean: dict[str, Tensor] = {}
    for update in updates:
        share = update.weight / total_weight
        for key, value in update.adapter.items():
            if key in mean:
                mean[key] += value * share
            else:
                mean[key] = value * share
    return mean


def sorted_values(updates: Sequence[Update], adapter: AdapterState) -> Iterator[tuple[str, Tensor]]:
    """Yield each key with what the updates have there, each value sorted over the cohort.

    Shape ``(updates, ...)``. One key of all updates is in memory at a time.
    """
    import torch

    for key in adapter:
        yield key, torch.stack([update.adapter[key] for update in updates]).sort(dim=0).values


def weighted_metrics(updates: Sequence[Update]) -> dict[str, float]:
    """Return the weighted mean of each metric; all updates report the same ones."""
    total_weight = sum(update.weight for update in updates)
    means: dict[str, float] = {}
    for update in updates:
        share = update.weight / total_weight
        for name, value in update.metrics.items():
            means[name] = means[name] + value * share if name in means else value * share
    return means
