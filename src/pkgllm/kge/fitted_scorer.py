"""Scorers that make persons' vectors from what is visible of them: what they share."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pkgllm.corpora.catalogue import Catalogue
from pkgllm.errors import DataError, PkgllmError
from pkgllm.evaluation.scorer import ClientQueries, RankedClient, rank_scores
from pkgllm.kge.fold_in import PAIRS_AT_ONCE, Visible
from pkgllm.kge.frozen import Frozen


class FoldInScorer(ABC):
    """Scores items for persons whose vectors are fit together, some persons at a time.

    Args:
        name: In results.
        ranked: The items to rank, in column order.
        known: The catalogue that the embedding was trained with.

    Raises:
        DataError: If an item to rank has no vector.
    """

    def __init__(self, name: str, *, ranked: Catalogue, known: Catalogue) -> None:
        self.name = name
        self._places = _known_places(ranked, known, name=name)

    @property
    def clients_at_once(self) -> int:
        """Persons that are scored together."""
        return 64

    def scores(self, queries: Sequence[ClientQueries]) -> NDArray[np.float64]:
        """Return the model's scores, shape ``(len(queries), len(catalogue))``."""
        scores = np.empty((len(queries), len(self._places)))
        for begin in range(0, len(queries), self.clients_at_once):
            part = slice(begin, begin + self.clients_at_once)
            scores[part] = self._score(queries[part])
        return scores

    def rank(
        self,
        queries: Sequence[ClientQueries],
        candidates: NDArray[np.bool_],
        gold: Sequence[NDArray[np.int64]],
        *,
        top_k: int,
    ) -> Sequence[RankedClient | PkgllmError]:
        """Rank as :func:`pkgllm.evaluation.scorer.rank_queries`, persons fit together."""
        rows = self.scores(queries)
        return [
            rank_scores(row, mask, columns, top_k=top_k)
            for row, mask, columns in zip(rows, candidates, gold, strict=True)
        ]

    @abstractmethod
    def _score(self, queries: Sequence[ClientQueries]) -> NDArray[np.float64]:
        """Return the scores for at most :attr:`clients_at_once` persons."""


def has_news(person: Visible, known: NDArray[np.int64]) -> bool:
    """Return whether a person's visible facts hold one that is not known.

    Args:
        person: Whose facts.
        known: (relation, item entity), shape ``(facts, 2)``.
    """
    rows = {tuple(fact) for fact in known.tolist()}
    return any(tuple(fact) not in rows for fact in person.facts.tolist())


def without_facts(person: Visible) -> Visible:
    """Return a person of whom nothing is visible, so that the vector stays where it starts."""
    return Visible(person.client, person.facts[:0], person.start)


@torch.no_grad()
def score_items(
    frozen: Frozen,
    persons: Sequence[Tensor],
    relations: Sequence[Tensor],
    items: Sequence[Tensor],
) -> NDArray[np.float64]:
    """Return the scores of (person, relation, item), a part of the items at a time.

    Args:
        frozen: Models of the persons.
        persons: One tensor for each part of an entity, shape ``(persons, *part)``.
        relations: One for each part of a relation, shape ``(persons or 1, 1, *part)``.
        items: As ``persons``, of the items, shape ``(persons or 1, items, *part)``.

    Returns:
        Shape ``(persons, items)``.
    """
    at_once = max(1, PAIRS_AT_ONCE // max(1, len(persons[0])))
    rows = torch.arange(len(persons[0]), device=frozen.device)
    columns = [
        frozen.scores(
            rows,
            [part.unsqueeze(1) for part in persons],
            relations,
            [part[:, begin : begin + at_once] for part in items],
        ).double()
        for begin in range(0, items[0].shape[1], at_once)
    ]
    return torch.cat(columns, dim=1).cpu().numpy()


def _known_places(ranked: Catalogue, known: Catalogue, *, name: str) -> list[int]:
    """Return the place of each item to rank in the catalogue that the embedding was trained with.

    Raises:
        DataError: If one is not in it.
    """
    unknown = [item.id for item in ranked if item.id not in known]
    if unknown:
        raise DataError(
            f"{name}: every item to rank must have a vector, and {len(unknown)} of "
            f"{len(ranked)} have none, one is {unknown[0]!r}; an embedding can only "
            "rank the catalogue that it was trained with"
        )
    return [known.index_by_id[item.id] for item in ranked]
