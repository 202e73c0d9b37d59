"""Who trains with whom, and how updates become the next adapter."""

from typing import Annotated, Literal

from pydantic import Field

from pkgllm.config.section import Positive, PositiveFloat, Section


class FedAvg(Section):
    """Federated averaging (McMahan et al. 2017)."""

    name: Literal["fedavg"]


class LocalRuntime(Section):
    """Server and clients in this process, which trains the clients of a round together."""

    name: Literal["local"]


class DeploymentRuntime(Section):
    """Clients on machines of their own, reached over TLS; see ``docs/deployment.md``."""

    name: Literal["deployment"]
    superlink: str = "127.0.0.1:9093"
    """Host and port of the SuperLink, which ``pkgllm federation server`` starts."""
    keys: str = "federation/server"
    """Folder with the certificate of the authority, the secret shared with the SuperLink, and the
    public key of each client that may take part; ``pkgllm federation keys`` makes it."""
    clients_timeout: PositiveFloat = 600.0
    """Seconds to wait at the start for clients to connect, before the run goes on with those that
    have; all of them when they are there earlier."""


Runtime = Annotated[LocalRuntime | DeploymentRuntime, Field(discriminator="name")]


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
    runtime: Runtime = LocalRuntime(name="local")
    """Where the clients are."""
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
