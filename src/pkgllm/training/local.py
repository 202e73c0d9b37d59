"""What every engine of local training takes and gives."""

from dataclasses import dataclass
from typing import Protocol

from pkgllm.lm.adapter import AdapterState


@dataclass(frozen=True, slots=True)
class TrainedClient:
    """What one client has after its local steps; what of it is sent is another's choice."""

    adapter: AdapterState
    num_groups: int
    """Groups that the client holds. Private."""
    loss: float
    """Mean loss over the local steps, before each. Private."""


class LocalTrainer(Protocol):
    """Trains one client from a received adapter."""

    def __call__(
        self, client: str, adapter: AdapterState, *, round_num: int, learning_rate: float
    ) -> TrainedClient:
        """Return the client's adapter after its local steps of a round."""
        ...
