"""Who trains with whom, and how updates become the next adapter."""

from typing import Annotated, Literal

from pydantic import Field

from pkgllm.config.section import Positive, PositiveFloat, Section
from pkgllm.config.strategy_sections import FedAvg, Strategy


class Federated(Section):
    """Clients train apart; the server averages what they send."""

    name: Literal["federated"]
    rounds: Positive
    """Server iterations."""
    cohort_size: Positive
    """Clients drawn in each round."""
    weighting: Literal["uniform", "examples"] = "uniform"
    """Weight of a client's update: equal, or its number of groups (a private count)."""
    strategy: Strategy = FedAvg(name="fedavg")
    """How updates become the next adapter."""
    aggregation: Literal["factor_mean", "stack_svd"] = "factor_mean"
    """What ``fedavg`` and ``fedprox`` average: each factor of the adapter, or the products of the
    factors, of which the best approximation of rank ``adapter.lora_rank`` is kept. The mean of
    factors is not the mean of products; with ``adapter.freeze_a`` it is."""
    round_timeout: PositiveFloat = 3600.0
    """Seconds after which a client counts as failed; in one process, clients that train together
    share their time equally."""


class Centralized(Section):
    """All training graphs in one place: what federation is measured against."""

    name: Literal["centralized"]
    rounds: Positive
    """Stretches of training between two lines of metrics."""
    cohort_size: Positive = 1
    """Multiplies ``training.local_steps``, so that a run sees as many groups as a federated one."""


class Local(Section):
    """Every client trains its own adapter and sends nothing."""

    name: Literal["local"]
    rounds: Positive
    """Stretches of ``training.local_steps`` for each client."""


Mode = Annotated[Federated | Centralized | Local, Field(discriminator="name")]
