"""Stages of training: what one loop over the triples trains, and how it takes its steps."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from pkgllm.kge.integer_triples import IntegerTriples
from pkgllm.kge.pykeen_door import Model


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """How a stage of training takes its steps, by Adam.

    Raises:
        ValueError: If a number is out of range.
    """

    epochs: int
    """Passes over the triples."""
    batch_size: int | None
    """Triples of a step; None takes all of them in each."""
    num_negatives: int
    """Corrupted triples of each triple: half with another head, half with another tail, drawn
    uniformly from all entities; those that are training triples are left out."""
    learning_rate: float
    weight_decay: float = 0.0
    """L2 penalty of Adam, on every trained number."""
    decay_every: int | None = None
    """Epochs after which the learning rate is multiplied with ``decay_factor``, again and again."""
    decay_factor: float = 1.0

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("num_negatives", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        for optional in ("batch_size", "decay_every"):
            value = getattr(self, optional)
            if value is not None and value < 1:
                raise ValueError(f"{optional} must be at least 1 or None, got {value}")
        if not self.learning_rate > 0 or not self.weight_decay >= 0 or not self.decay_factor > 0:
            raise ValueError(
                "learning_rate and decay_factor must be above 0 and weight_decay from 0, got "
                f"{self.learning_rate}, {self.decay_factor} and {self.weight_decay}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One loop of training: a model that is not trained yet, and how it will be."""

    name: str
    model: Callable[[IntegerTriples, int], Model]
    """From the triples and a seed for what is drawn besides first vectors."""
    schedule: Schedule
    inverse: bool = False
    """Whether the model learns from inverse triples as well."""


class SingleStage(ABC):
    """A choice of a model that one loop of training makes."""

    __slots__ = ()

    name: ClassVar[str]
    inverse: ClassVar[bool] = False
    """Whether the model learns from inverse triples as well."""
    schedule: Schedule

    @abstractmethod
    def untrained(self, triples: IntegerTriples, seed: int) -> Model:
        """Return the model before training.

        Args:
            triples: What it will learn from.
            seed: For what is drawn besides first vectors.
        """

    def stage(self) -> Stage:
        """Return the one stage of its training."""
        return Stage(
            name=self.name, model=self.untrained, schedule=self.schedule, inverse=self.inverse
        )
