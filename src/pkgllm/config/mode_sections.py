"""Who trains with whom, and how updates become the next adapter."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from pkgllm.config.choices import ChosenFrom
from pkgllm.config.section import (
    NotNegative,
    NotNegativeFloat,
    Positive,
    PositiveFloat,
    Section,
)
from pkgllm.federation.algorithm import Algorithm
from pkgllm.federation.algorithms import ALGORITHMS
from pkgllm.federation.algorithms.fedavg import FedAvg


class LocalRuntime(Section):
    """Server and clients in this process; the clients of a round train together."""

    name: Literal["local"]


class RayRuntime(Section):
    """The clients in Ray's actors, each training one client at a time; needs ``pkgllm[ray]``."""

    name: Literal["ray"]
    cpus_per_client: PositiveFloat = 1.0
    """Processors that an actor takes; rounded down, but at least to 1, its threads on a CPU."""
    gpus_per_client: NotNegativeFloat = 0.0
    """GPUs that an actor takes, such as 0.25 for four actors on one; with 0 it trains on a CPU."""
    cpus: Positive | None = None
    """Processors that Ray is given, which bounds the number of actors; when absent all that it
    finds."""
    gpus: NotNegative | None = None
    """GPUs that Ray is given; when absent all that it finds."""


class DeploymentRuntime(Section):
    """Clients on machines of their own, reached over TLS; see ``docs/deployment.md``."""

    name: Literal["deployment"]
    superlink: str = "127.0.0.1:9093"
    """Host and port of the SuperLink, which ``pkgllm federation server`` starts."""
    keys: str = "federation/server"
    """Folder with the certificate of the authority, the secret shared with the SuperLink, and the
    public key of each client that may take part; ``pkgllm federation keys`` makes it. With
    ``objective.kl_baseline: public`` also the clients' ``catalogue.json``."""
    clients_timeout: PositiveFloat = 600.0
    """Seconds to wait at the start for clients to connect, before the run goes on with those that
    have; all of them when they are there earlier."""


Runtime = Annotated[LocalRuntime | RayRuntime | DeploymentRuntime, Field(discriminator="name")]


class Federated(Section):
    """Clients train apart; the server averages what they send."""

    sums_updates: ClassVar[bool] = True
    """Whether clients send updates that a server sums."""
    trains_together: ClassVar[bool] = True
    """Whether one adapter learns from all clients."""

    name: Literal["federated"]
    rounds: Positive
    """Server iterations."""
    cohort_size: Positive
    """Clients drawn in each round."""
    weighting: Literal["uniform", "examples"] = "uniform"
    """Weight of a client's update: equal, set by the server, or its number of groups (a private
    count), which the client claims and ``max_weight_ratio`` caps."""
    max_weight_ratio: Annotated[float, Field(ge=1)] = 10.0
    """With ``weighting: examples`` the largest weight, in medians of the cohort's weights."""
    max_update_norm: PositiveFloat | None = None
    """Largest Euclidean length of an update; a client that sends a longer one is left out of the
    round. When absent there is no fixed bound. With ``privacy.unit: client`` it is
    ``privacy.clip_norm`` that bounds an update."""
    max_update_ratio: Annotated[float, Field(gt=1)] | None = 5.0
    """Largest length of an update, in medians of the cohort's lengths; a client that sends a longer
    one is left out of the round. For aggregators that take sums; not with ``privacy.unit: client``,
    whose guarantee bounds what one client does to the sum alone. null for no such bound."""
    strategy: Annotated[Algorithm, ChosenFrom(ALGORITHMS)] = FedAvg()
    """How updates become the next adapter."""
    aggregation: Literal["factor_mean", "stack_svd"] = "factor_mean"
    """What ``fedavg`` and ``fedprox`` average: each factor of the adapter, or the products of the
    factors, of which the best approximation of rank ``adapter.lora_rank`` is kept. The mean of
    factors is not the mean of products; with ``adapter.freeze_a`` it is."""
    min_updates: Positive = 1
    """Usable updates that a round needs; with fewer the run ends, and can go on when resumed. With
    ``privacy.mechanism: local`` so many clients' shares make up the noise: the fewer, the larger
    each share."""
    round_timeout: PositiveFloat = 3600.0
    """Seconds after which a client counts as failed; in one process, clients that train together
    share their time equally, and elsewhere the clock runs from the start of the round."""
    runtime: Runtime = LocalRuntime(name="local")
    """Where server and clients run."""

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

    sums_updates: ClassVar[bool] = False
    trains_together: ClassVar[bool] = True

    name: Literal["centralized"]
    rounds: Positive
    """Stretches of training between two lines of metrics."""
    cohort_size: Positive = 1
    """Multiplies ``training.local_steps``, so that a run sees as many groups as a federated one."""


class Local(Section):
    """Every client trains its own adapter and sends nothing."""

    sums_updates: ClassVar[bool] = False
    trains_together: ClassVar[bool] = False

    name: Literal["local"]
    rounds: Positive
    """Stretches of ``training.local_steps`` for each client."""


Mode = Annotated[Federated | Centralized | Local, Field(discriminator="name")]
