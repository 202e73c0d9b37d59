"""What is averaged: each factor of the adapters, or the products of the factors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pkgllm.federation.algorithm import Aggregate
from pkgllm.federation.algorithms import ALGORITHMS
from pkgllm.federation.algorithms.stack_svd import mean_of_products
from pkgllm.registry import RunSettings

AGGREGATIONS: Mapping[str, Aggregate | None] = {"factor_mean": None, "stack_svd": mean_of_products}
"""By the names of ``mode.aggregation``; None leaves it to the algorithm."""


def aggregation_problems(run: RunSettings) -> Iterator[str]:
    """Yield what does not fit the aggregation of a federated run, a line each."""
    if AGGREGATIONS[run.mode.aggregation] is None:
        return
    strategy = run.mode.strategy
    if strategy.compares_values:
        fitting = [name for name in ALGORITHMS if not ALGORITHMS[name].compares_values]
        yield (
            "mode.aggregation stack_svd gives the factors new axes in each round, and "
            f"mode.strategy {strategy.name} compares their single values; use "
            f"{' or '.join(fitting)}, or aggregation factor_mean"
        )
    if run.adapter.freeze_a:
        yield (
            "mode.aggregation stack_svd would change the factor that adapter.freeze_a holds; use "
            "factor_mean, which is the mean of products then"
        )
