"""The aggregators by name. Each takes the hyper-parameters that its section of the config names.

Flower's own strategies do the arithmetic where it has them; docs/aggregation.md says what each one
computes, and where Flower departs from the paper.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from flwr.serverapp import strategy

from pkgllm.federation.algorithms.krum import Krum
from pkgllm.federation.algorithms.resumable import WHOLE_COHORT, ResumableStrategy
from pkgllm.federation.algorithms.scaffold import Scaffold
from pkgllm.federation.algorithms.server_optimizers import FedAdagrad, FedAdam, FedAvgM, FedYogi
from pkgllm.federation.algorithms.stack_svd import StackSvd

StrategyName = Literal[
    "fedavg",
    "fedprox",
    "scaffold",
    "fedavgm",
    "fedadagrad",
    "fedyogi",
    "fedadam",
    "fedmedian",
    "fedtrimmedavg",
    "krum",
]
Aggregation = Literal["factor_mean", "stack_svd"]


class FedAvg(strategy.FedAvg, ResumableStrategy):
    """The weighted mean of the clients' adapters, factor by factor.

    Source: McMahan et al. 2017, arXiv:1602.05629, algorithm 1.
    """

    def __init__(self) -> None:
        super().__init__(**WHOLE_COHORT)


class FedProx(strategy.FedProx, ResumableStrategy):
    r"""FedAvg whose clients minimise :math:`f_i(y) + \frac{\mu}{2} \lVert y - x \rVert^2`.

    Source: Li et al. 2020, arXiv:1812.06127, algorithm 2.

    Args:
        proximal_mu: :math:`\mu`; 0 is FedAvg.
    """

    def __init__(self, *, proximal_mu: float) -> None:
        super().__init__(**WHOLE_COHORT, proximal_mu=float(proximal_mu))


class FedMedian(strategy.FedMedian, ResumableStrategy):
    """The median of each value; weights count for metrics only. Takes the updates apart.

    Source: Yin et al. 2018, arXiv:1803.01498, definition 1.
    """

    def __init__(self) -> None:
        super().__init__(**WHOLE_COHORT)


class FedTrimmedAvg(strategy.FedTrimmedAvg, ResumableStrategy):
    """The mean of each value without its largest and smallest. Takes the updates apart.

    Source: Yin et al. 2018, arXiv:1803.01498, definition 2.

    Args:
        trimmed_share: Share of the cohort that is left out at each end, rounded down to clients.
    """

    def __init__(self, *, trimmed_share: float) -> None:
        super().__init__(**WHOLE_COHORT, beta=trimmed_share)


class StackSvdFedAvg(StackSvd, FedAvg):
    """FedAvg of products; see :mod:`~pkgllm.federation.algorithms.stack_svd`."""


class StackSvdFedProx(StackSvd, FedProx):
    """FedProx of products; see :mod:`~pkgllm.federation.algorithms.stack_svd`."""


_BY_NAME: Mapping[str, Callable[..., ResumableStrategy]] = {
    "fedavg": FedAvg,
    "fedprox": FedProx,
    "scaffold": Scaffold,
    "fedavgm": FedAvgM,
    "fedadagrad": FedAdagrad,
    "fedyogi": FedYogi,
    "fedadam": FedAdam,
    "fedmedian": FedMedian,
    "fedtrimmedavg": FedTrimmedAvg,
    "krum": Krum,
}
_STACKED: Mapping[str, Callable[..., ResumableStrategy]] = {
    "fedavg": StackSvdFedAvg,
    "fedprox": StackSvdFedProx,
}


def make_strategy(
    name: StrategyName,
    parameters: Mapping[str, float] | None = None,
    *,
    aggregation: Aggregation = "factor_mean",
    clients: Sequence[str] = (),
    local_steps: int = 1,
) -> ResumableStrategy:
    """Return a strategy for cohorts that are drawn beforehand.

    Args:
        name: Which.
        parameters: Its hyper-parameters, by the names that its class takes, all of them.
        aggregation: How adapters are averaged.
        clients: Ids of all training clients, which SCAFFOLD must know.
        local_steps: Optimiser steps of a client in a round, which SCAFFOLD must know.

    Raises:
        ValueError: If there is no strategy of this name, or it cannot aggregate in this way.
        TypeError: If a hyper-parameter is missing or foreign.

    Example:
        >>> make_strategy("fedprox", {"proximal_mu": 0.1}).proximal_mu
        0.1
    """
    made = _BY_NAME if aggregation == "factor_mean" else _STACKED
    if name not in made:
        raise ValueError(
            f"strategy must be one of {', '.join(made)} for aggregation {aggregation}, got {name!r}"
        )
    more: dict[str, Any] = {}
    if name == "scaffold":
        more = {"clients": clients, "local_steps": local_steps}
    return made[name](**(parameters or {}), **more)
