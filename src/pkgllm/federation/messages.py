"""What server and clients exchange in a round, whatever carries it.

What of it leaves a device, and under which names, is in :mod:`pkgllm.federation.flower.records`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from pkgllm.printable import printable

if TYPE_CHECKING:
    from pkgllm.lm.adapter import AdapterState
    from pkgllm.privacy.local_noise import LocalNoise


@dataclass(frozen=True, slots=True, kw_only=True)
class Broadcast:
    """What an algorithm sends to the whole cohort beside the adapter, by name."""

    numbers: Mapping[str, float] = field(default_factory=dict)
    tensors: Mapping[str, AdapterState] = field(default_factory=dict)
    """Each with the keys and shapes of the adapter."""

    @property
    def names(self) -> set[str]:
        """Names of all that is sent."""
        return {*self.numbers, *self.tensors}


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    """What the server asks of one client in one round."""

    adapter: AdapterState
    """From which local training starts."""
    round_num: int
    learning_rate: float
    """The local step size."""
    broadcast: Broadcast = field(default_factory=Broadcast)
    kl_baseline: float | None = None
    """KTO's, computed on public prompts, nats; None but for an objective that takes it."""
    accepted_round: int | None = None
    """The last round whose update of this client was averaged, 0 for none; None where clients keep
    nothing between rounds."""
    local_noise: LocalNoise | None = None
    """How the server expects the update to be protected; None where it adds the noise itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """What a client sends back."""

    adapter: AdapterState
    """After the local steps; clipped and noised where clients add their share of the noise."""
    weight: float = 1.0
    metrics: Mapping[str, float] = field(default_factory=dict)
    """What else the client chose to report."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a client sent no usable update."""

    reason: str
    """Printable and at most 300 characters, since a client may have had a part in it."""

    def __post_init__(self) -> None:
        """Cut the reason, and take control characters out of it."""
        object.__setattr__(self, "reason", printable(self.reason)[:300])


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What a transport brought back."""

    replies: Mapping[str, Update | Fault]
    """By client; a client that did not answer in time is absent."""
    bytes_down: int = 0
    """Bytes that were sent to the cohort."""
    bytes_up: int = 0
    """Bytes that came back."""


class Transport(Protocol):
    """Carries instructions to clients, and their updates back."""

    def clients(self, timeout: float) -> Collection[str]:
        """Return the ids of the clients that are connected.

        Args:
            timeout: Seconds to wait for their answers.

        Raises:
            FederationError: If two clients say that they are one, or one does not say who it is
                where each is a process of the run's own.
        """
        ...

    def exchange(self, instructions: Mapping[str, Instruction], timeout: float) -> Delivery:
        """Send each client its instruction, and return what came back.

        Args:
            instructions: By client id, sorted; each client is connected.
            timeout: Seconds after which a client counts as failed.
        """
        ...


def failure_reason(client: str, kind: type[Exception]) -> str:
    """Return what a server learns of an exception: never its text, which may quote a fact.

    Example:
        >>> failure_reason("anna", ValueError)
        'client anna raised ValueError'
    """
    return f"client {client} raised {kind.__name__}"
