"""What is averaged: each factor of the adapters, or the products of the factors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from pkgllm.federation.algorithms.stack_svd import mean_of_products
from pkgllm.federation.messages import Update

if TYPE_CHECKING:
    from pkgllm.lm.adapter import AdapterState

Aggregate = Callable[[Sequence[Update], "AdapterState"], "AdapterState"]
"""Makes one adapter of those of a cohort, and of the one that the cohort received."""

AGGREGATIONS: Mapping[str, Aggregate | None] = {"factor_mean": None, "stack_svd": mean_of_products}
"""By the names of ``mode.aggregation``; None leaves it to the algorithm."""
