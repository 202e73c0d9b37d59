"""What every engine of local training takes and returns."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, Protocol

from pkgllm.errors import FederationError
from pkgllm.lm.adapter import AdapterState


@dataclass(frozen=True, slots=True)
class LocalSteps:
    """How one client trains in one round."""

    optimizer: Literal["adamw", "sgd"] = "adamw"
    local_steps: int = 4
    """Optimiser steps in a round."""
    groups_per_step: int = 4
    """Groups in a step; all of them where a client has fewer."""
    max_grad_norm: float = 1.0
    """Longest gradient of a step."""
    weight_decay: float = 0.0


@dataclass(frozen=True, slots=True)
class TrainedClient:
    """One client after its local steps; what it sends is decided elsewhere."""

    adapter: AdapterState
    num_groups: int
    """Groups that the client holds. Private."""
    loss: float
    """Mean loss over the local steps, before each. Private."""


KlBaseline = Callable[[AdapterState], float | None]
"""The KL baseline of a round that starts from an adapter, nats; None where the objective takes none
from the server."""


def no_baseline(adapter: AdapterState) -> None:
    """Return the KL baseline of an objective that takes none from the server."""


NO_CORRECTIONS: Mapping[str, AdapterState] = MappingProxyType({})
"""Of a cohort whose strategy corrects nobody's gradients."""


class CohortTrainer(Protocol):
    """Trains clients, each from the adapter it received."""

    def __call__(
        self,
        adapters: Mapping[str, AdapterState],
        *,
        round_num: int,
        learning_rate: float,
        proximal_mu: float = 0.0,
        kl_baseline: float | None = None,
        corrections: Mapping[str, AdapterState] = NO_CORRECTIONS,
    ) -> dict[str, TrainedClient | Exception]:
        """Return what each client has after its local steps of a round.

        A client that fails has the exception instead; the others train as they would without it.

        Args:
            adapters: What each client received, by its id. Equal ones are one object, and must not
                be changed.
            round_num: The round, from 1.
            learning_rate: Of all clients.
            proximal_mu: Weight of FedProx's pull towards what a client received.
            kl_baseline: KTO's for the round, of an objective that takes it from the server; nats.
            corrections: SCAFFOLD's ``c - c_i`` by client, added to each gradient; a client that is
                absent has none. Both terms come after the gradient is clipped; see
                :mod:`~pkgllm.training.local_terms`.
        """
        ...


def loss_not_finite(client: str, round_num: int, loss: float) -> FederationError:
    """Return the error of a client whose loss is not finite."""
    return FederationError(
        f"client {client!r}, round {round_num}: the loss must be finite, got {loss}; lower "
        "training.learning_rate"
    )
