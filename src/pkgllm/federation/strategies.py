"""How updates become the next adapter."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal, Protocol

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg

from pkgllm.federation.records import WEIGHT

StrategyName = Literal["fedavg"]
State = Mapping[str, np.ndarray[Any, Any]]


class ResumableStrategy(Protocol):
    """What the round loop needs of a strategy of Flower, and what it remembers."""

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Address the cohort."""
        ...

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Return the next adapter and the means of the metrics."""
        ...

    def state_dict(self) -> dict[str, np.ndarray[Any, Any]]:
        """Return what the strategy remembers from round to round."""
        ...

    def load_state_dict(self, state: State, arrays: ArrayRecord) -> None:
        """Remember what another object had remembered when its adapter was ``arrays``."""
        ...


class _FedAvg(FedAvg):
    def state_dict(self) -> dict[str, np.ndarray[Any, Any]]:
        return {}

    def load_state_dict(self, state: State, arrays: ArrayRecord) -> None:
        pass


def make_strategy(name: StrategyName) -> ResumableStrategy:
    """Return Flower's strategy of a name, set up for a cohort that is drawn beforehand."""
    if name != "fedavg":
        raise ValueError(f"strategy must be 'fedavg', got {name!r}")
    return _FedAvg(
        fraction_train=1.0,
        fraction_evaluate=0.0,
        min_train_nodes=1,
        min_available_nodes=1,
        weighted_by_key=WEIGHT,
    )
