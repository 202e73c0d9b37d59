"""Frozen models while persons are fit: one model for all of them, or one for each."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from pykeen.losses import Loss
from torch import Tensor
from torch.func import vmap

from pkgllm.kge.pykeen_door import (
    Model,
    entity_parts,
    model_device,
    relation_parts,
    score_parts,
    score_with,
)


@dataclass(frozen=True, slots=True, eq=False)
class Frozen(ABC):
    """Models of persons, which are not changed.

    ``persons`` holds the number of the person whose model scores each fact, shape ``(facts,)``.
    Relations and entities have the numbers of the triples, shape ``(facts, n)`` or ``(1, n)``.
    """

    model: Model
    """In evaluation mode; the only one, or any of them."""
    padded: ClassVar[bool]
    """Whether scores are computed for as many facts of each person as any of them has."""

    @property
    def loss(self) -> Loss:
        """What training minimised."""
        loss: Loss = self.model.loss
        return loss

    @property
    def device(self) -> torch.device:
        """Where the models are."""
        return model_device(self.model)

    @abstractmethod
    def some(self, begin: int, end: int) -> "Frozen":
        """Return the models of the persons from ``begin`` to below ``end``."""

    @abstractmethod
    def relations(self, persons: Tensor, relations: Tensor) -> list[Tensor]:
        """Return what an interaction reads of relations, one tensor for each part."""

    @abstractmethod
    def entities(self, persons: Tensor, entities: Tensor) -> list[Tensor]:
        """Return what an interaction reads of entities, one tensor for each part."""

    @abstractmethod
    def scores(
        self,
        persons: Tensor,
        heads: Sequence[Tensor],
        relations: Sequence[Tensor],
        tails: Sequence[Tensor],
    ) -> Tensor:
        """Return the scores of parts, shape ``(facts, n)``; the facts of a person stand together.

        Args:
            persons: Number of the person of each fact.
            heads: Parts of the persons, each ``(facts, 1, *part)``.
            relations: As the method of this name returns them.
            tails: As :meth:`entities` returns them.
        """


@dataclass(frozen=True, slots=True, eq=False)
class SharedModel(Frozen):
    """One model for all persons."""

    padded: ClassVar[bool] = False

    def some(self, begin: int, end: int) -> "SharedModel":
        """Return itself."""
        return self

    @torch.no_grad()
    def relations(self, persons: Tensor, relations: Tensor) -> list[Tensor]:
        """Return what the model reads of relations."""
        return relation_parts(self.model, relations)

    @torch.no_grad()
    def entities(self, persons: Tensor, entities: Tensor) -> list[Tensor]:
        """Return what the model reads of entities."""
        return entity_parts(self.model, entities)

    def scores(
        self,
        persons: Tensor,
        heads: Sequence[Tensor],
        relations: Sequence[Tensor],
        tails: Sequence[Tensor],
    ) -> Tensor:
        """Return the model's scores."""
        return score_parts(self.model, list(heads), list(relations), list(tails))


@dataclass(frozen=True, slots=True, eq=False)
class OwnModels(Frozen):
    """A model for each person, all of one kind, scored in one pass."""

    entity_tables: Sequence[Tensor]
    """Of each part of an entity, shape ``(models, entities, *part)``."""
    relation_tables: Sequence[Tensor]
    networks: Mapping[str, Tensor]
    """Parameters and buffers of the interaction by name, shape ``(models, ...)``."""
    whose: Tensor
    """Which of the models belongs to each person, shape ``(persons,)``."""
    padded: ClassVar[bool] = True

    @classmethod
    def copied(cls, models: Iterable[Model], whose: Sequence[int]) -> "OwnModels":
        """Copy models, each before the next one is read from the iterable.

        Args:
            models: In evaluation mode, at least one, without inverse relations.
            whose: Which of them belongs to each person.
        """
        entities, relations, networks = [], [], []
        for model in models:
            entities.append(_copies(part() for part in model.entity_representations))
            relations.append(_copies(part() for part in model.relation_representations))
            network = [*model.interaction.named_parameters(), *model.interaction.named_buffers()]
            networks.append({name: value.detach().clone() for name, value in network})
        return cls(
            model,
            [torch.stack(parts) for parts in zip(*entities, strict=True)],
            [torch.stack(parts) for parts in zip(*relations, strict=True)],
            {name: torch.stack([network[name] for network in networks]) for name in networks[0]},
            torch.tensor(whose, device=model_device(model)),
        )

    def some(self, begin: int, end: int) -> "OwnModels":
        """Return the models of the persons from ``begin`` to below ``end``."""
        return replace(self, whose=self.whose[begin:end])

    def relations(self, persons: Tensor, relations: Tensor) -> list[Tensor]:
        """Return what each person's model reads of relations."""
        return [
            table[self.whose[persons].unsqueeze(1), relations] for table in self.relation_tables
        ]

    def entities(self, persons: Tensor, entities: Tensor) -> list[Tensor]:
        """Return what each person's model reads of entities."""
        return [table[self.whose[persons].unsqueeze(1), entities] for table in self.entity_tables]

    def scores(
        self,
        persons: Tensor,
        heads: Sequence[Tensor],
        relations: Sequence[Tensor],
        tails: Sequence[Tensor],
    ) -> Tensor:
        """Return the scores of each person's model."""
        distinct, counts = torch.unique_consecutive(persons, return_counts=True)
        most = int(counts.max())
        ends = counts.cumsum(0).unsqueeze(1)
        # Row by row the facts of each person; where one has fewer, its last one again.
        facts = torch.minimum(
            ends - counts.unsqueeze(1) + torch.arange(most, device=ends.device), ends - 1
        )
        whose = self.whose[distinct]

        def of_one(network: dict[str, Tensor], *parts: list[Tensor]) -> Tensor:
            return score_with(self.model.interaction, network, *parts)

        padded = vmap(of_one)(
            {name: values[whose] for name, values in self.networks.items()},
            *([part[facts] for part in parts] for parts in (heads, relations, tails)),
        )
        real = torch.arange(most, device=ends.device) < counts.unsqueeze(1)
        scores: Tensor = padded[real]
        return scores


def _copies(parts: Iterable[Tensor]) -> list[Tensor]:
    return [part.detach().clone() for part in parts]
