"""Who trains with whom, and how updates become the next adapter."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pkgllm.config.section import Positive, PositiveFloat, Section


class FedAvg(Section):
    """Federated averaging (McMahan et al. 2017)."""

    name: Literal["fedavg"]


class Federated(Section):
    """Clients train apart; the server averages what they send."""

    name: Literal["federated"]
    rounds: Positive
    """Server iterations."""
    cohort_size: Positive
    """Clients drawn in each round."""
    weighting: Literal["uniform", "examples"] = "uniform"
    """Weight of a client's update: equal, or its number of groups (a private count)."""
    strategy: FedAvg = FedAvg(name="fedavg")
    """How updates become the next adapter."""
    min_updates: Positive = 1
    """Usable updates that a round needs; with fewer the run ends, and can go on when resumed."""
    round_timeout: PositiveFloat = 3600.0
    """Seconds after which a client counts as failed; in one process, clients that train together
    share their time equally."""

    @model_validator(mode="after")
    def _enough_clients(self) -> "Federated":
        if self.min_updates > self.cohort_size:
            raise ValueError(
                f"min_updates must be at most cohort_size, {self.cohort_size}, got "
                f"{self.min_updates}"
            )
        return self


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
