"""What an embedding is: settings, and stages of training with one loop each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pkgllm.kge.settings import Schedule
from pkgllm.registry import Choice, RunSettings

if TYPE_CHECKING:
    from pkgllm.kge.integer_triples import IntegerTriples
    from pkgllm.kge.pykeen_door import Model


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One loop of training: a model that is not trained yet, and how it will be."""

    name: str
    model: Callable[[IntegerTriples, int], Model]
    """From the triples and a seed for what is drawn besides first vectors."""
    schedule: Schedule
    inverse: bool = False
    """Whether the model learns from inverse triples as well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedding(Choice):
    """A knowledge graph embedding: everything its training depends on but triples and seed."""

    has_own_vectors: ClassVar[bool] = True
    """Whether every entity has a vector of its own, so that clients can exchange vectors."""
    alike_over_clients: ClassVar[bool] = True
    """Whether clients that exchange everything end with one model, but for the person's row."""

    @property
    def schedules(self) -> Mapping[str, Schedule]:
        """The schedule of each stage by its name, in order."""
        raise TypeError(f"{type(self).__name__} must define schedules")

    def stage(self, name: str, before: Model | None) -> Stage:
        """Return a stage of its training.

        Args:
            name: One of :attr:`schedules`.
            before: The trained model of the stage before; None for the first.
        """
        raise TypeError(f"{type(self).__name__} must define stage")

    def untrained(self, triples: IntegerTriples, seed: int) -> Model:
        """Return the model that scores in the end, before training.

        Args:
            triples: What it will learn from.
            seed: For what is drawn besides first vectors.
        """
        raise TypeError(f"{type(self).__name__} must define untrained")

    def problems(self, run: RunSettings) -> Iterator[str]:
        """Yield settings of a run that an embedding does not support."""
        if run.evaluation.score != "sum":
            yield (
                "evaluation.score must be sum, because an embedding gives no log-probability to "
                f"adjust; got {run.evaluation.score}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class SingleStage(Embedding):
    """An embedding that one loop of training makes; a subclass defines :meth:`untrained`."""

    schedule: Schedule

    inverse: ClassVar[bool] = False
    """Whether the model learns from inverse triples as well."""

    @property
    def schedules(self) -> Mapping[str, Schedule]:
        """The one schedule; its stage bears the embedding's name."""
        return {self.name: self.schedule}

    def stage(self, name: str, before: Model | None) -> Stage:
        """Return the one stage."""
        return Stage(name=name, model=self.untrained, schedule=self.schedule, inverse=self.inverse)
