"""How embeddings are trained over clients, and what is called after each step of it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pkgllm.kge.exchange import Message


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
    """Where and under which seed embeddings are trained over clients, with its callbacks."""

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
