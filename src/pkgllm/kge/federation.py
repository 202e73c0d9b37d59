"""How embeddings are trained over clients, and who is told of it."""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from pkgllm.kge.exchange import EXCHANGED, Exchange, Message
from pkgllm.kge.stages import Schedule


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingFederation:
    """How embeddings are trained over clients.

    A stage has as many rounds as its epochs make, ``local_epochs`` in each, so that a client that
    is drawn every time trains as many epochs as one would on everybody's facts.

    Raises:
        ValueError: If a number is out of range.
    """

    exchange: Exchange
    cohort_size: int
    """Clients in a round, drawn uniformly without replacement."""
    local_epochs: int = 1
    """Passes of a client over what it learns from in a round."""
    public_facts: int | None = None
    """Public facts that a client learns from in a round beside its own, drawn anew each time; None
    takes all. A client's own facts are few, and all public ones would drown them."""

    def __post_init__(self) -> None:
        if self.exchange not in EXCHANGED:
            raise ValueError(f"exchange must be one of {list(EXCHANGED)}, got {self.exchange!r}")
        for name in ("cohort_size", "local_epochs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.public_facts is not None and self.public_facts < 1:
            raise ValueError(f"public_facts must be at least 1 or None, got {self.public_facts}")

    def num_rounds(self, schedule: Schedule) -> int:
        """Return the rounds of a stage."""
        return ceil(schedule.epochs / self.local_epochs)


@dataclass(frozen=True, slots=True)
class EmbeddingRound:
    """A round that is done."""

    stage: str
    round_num: int
    """From 1."""
    num_rounds: int
    """Of the stage."""
    cohort: tuple[str, ...]
    loss: float
    """Mean over the cohort of its last local epoch. Only the simulation sees it: no message has
    it."""


def _untold(_: object) -> None: ...


def _no_stage(name: str, done: int) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class FederatedSetup:
    """Where and under which seed embeddings are trained over clients, and who is told."""

    seed: int
    """The run's seed."""
    device: str = "cpu"
    """As for :class:`pkgllm.kge.training.TrainingSetup`."""
    folder: Path | None = None
    """Keeps the server's checkpoints, and apart from them what each client keeps to itself; None
    keeps nothing. It must exist."""
    keep: int = 2
    """The server's checkpoints of a stage that stay, at least 1."""
    on_stage: Callable[[str, int], None] = _no_stage
    """Told of every stage as it begins or goes on: its name, and its rounds that are done."""
    on_round: Callable[[EmbeddingRound], None] = _untold
    on_message: Callable[[Message], None] = _untold
    """Is shown every message, before it is read."""
    stop_asked: Callable[[], bool] = lambda: False
    """Asked after every round; where it says so, training ends with a checkpoint."""
