"""Embeddings under the protocol of all models: (person, liked, ?) over the whole catalogue."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from pykeen.models import InductiveNodePiece
from torch import Tensor

from pkgllm.baselines.fold_in import (
    PAIRS_AT_ONCE,
    FoldIn,
    Visible,
    fold_in,
    mean_person,
    tokenized_persons,
)
from pkgllm.baselines.preference_graph import PreferenceGraph
from pkgllm.baselines.pykeen_door import (
    Model,
    entity_parts,
    model_device,
    relation_parts,
    score_parts,
)
from pkgllm.corpora.catalogue import Catalogue
from pkgllm.errors import DataError, PkgllmError
from pkgllm.evaluation.ranks import best_columns, rank_gold
from pkgllm.evaluation.scorer import ClientQueries, RankedClient


class EmbeddingScorer:
    """Score items by a trained embedding, for a person as the visible facts make them.

    Whoever took no part in training starts at the mean of the training clients, and whoever did, at
    their own vector. Then the visible facts are fit (:func:`pkgllm.baselines.fold_in.fold_in`),
    with two exceptions: nobody is fit to no facts, so a person without any is scored as the mean
    person; and a training client of whom nothing is visible but what was trained on keeps the
    trained vector. So facts that became visible since, as those of the validation, do count.
    NodePiece makes everybody from their visible facts.

    Items tie where their scores are equal, as those of ReLU decoders often are.

    Items without a vector cannot be ranked; what the graph of a person holds besides those with one
    is left out of the fit.

    Args:
        name: In results.
        model: Trained on ``graph.triples``, in evaluation mode.
        graph: What it was trained on.
        settings: Of the fit.
        seed: The run's seed.
        catalogue: The items to rank, in column order; those of ``graph`` when absent.

    Raises:
        DataError: If the model and the graph do not have the same entities, or an item to rank is
            none of them.
    """

    clients_at_once = 64
    """Persons that are asked for together."""

    def __init__(
        self,
        name: str,
        model: Model,
        graph: PreferenceGraph,
        *,
        settings: FoldIn,
        seed: int,
        catalogue: Catalogue | None = None,
    ) -> None:
        if model.num_entities != graph.triples.num_entities:
            raise DataError(
                f"{name}: the model must have the {graph.triples.num_entities} entities of its "
                f"graph, has {model.num_entities}; load the model of this graph, or train it again"
            )
        self.name = name
        self._model, self._graph, self._settings, self._seed = model, graph, settings, seed
        heads = graph.triples.triples
        self._trained_facts = {
            person: heads[heads[:, 0] == entity][:, 1:] for person, entity in graph.persons.items()
        }
        device = model_device(model)
        self._ranked = graph.catalogue if catalogue is None else catalogue
        self._liked = torch.tensor([[graph.relations["liked"]]], device=device)
        with torch.no_grad():
            self._items = entity_parts(model, self._ranked_entities().to(device))
            persons = torch.tensor(list(graph.persons.values()), device=device)
            self._trained = entity_parts(model, persons)
            self._prior = mean_person(model, persons)

    def scores(self, queries: Sequence[ClientQueries]) -> NDArray[np.float64]:
        """Return the model's scores, shape ``(len(queries), len(catalogue))``."""
        found = np.empty((len(queries), len(self._ranked)))
        for begin in range(0, len(queries), self.clients_at_once):
            part = slice(begin, begin + self.clients_at_once)
            found[part] = self._score_items(self._persons(queries[part]))
        return found

    def rank(
        self,
        queries: Sequence[ClientQueries],
        candidates: NDArray[np.bool_],
        gold: Sequence[NDArray[np.int64]],
        *,
        top_k: int,
    ) -> Sequence[RankedClient | PkgllmError]:
        """Rank as :func:`pkgllm.evaluation.scorer.rank_queries`, persons fit together."""
        return rank_rows(self.scores(queries), candidates, gold, top_k=top_k)

    def _ranked_entities(self) -> Tensor:
        places = known_places(self._ranked, self._graph.catalogue, name=self.name)
        return torch.from_numpy(self._graph.items[places])

    def _persons(self, queries: Sequence[ClientQueries]) -> list[Tensor]:
        visible = [
            Visible(
                query.client,
                self._graph.facts(query.graph),
                self._trained_vector(query),
            )
            for query in queries
        ]
        if isinstance(self._model, InductiveNodePiece):
            return tokenized_persons(self._model, visible, seed=self._seed)
        return fold_in(
            self._model,
            [person if self._has_news(person) else without_facts(person) for person in visible],
            prior=self._prior,
            items=self._graph.items,
            settings=self._settings,
            seed=self._seed,
        )

    def _trained_vector(self, query: ClientQueries) -> list[Tensor] | None:
        entity = self._graph.persons.get(query.client) if query.seen_in_training else None
        return None if entity is None else [part[entity] for part in self._trained]

    def _has_news(self, person: Visible) -> bool:
        return person.start is None or has_news(person, self._trained_facts[person.client])

    def _score_items(self, persons: list[Tensor]) -> NDArray[np.float64]:
        return score_items(self._model, persons, self._liked, self._items)


def known_places(ranked: Catalogue, known: Catalogue, *, name: str) -> list[int]:
    """Return where the items to rank stand among those with vectors.

    Args:
        ranked: In column order.
        known: What the embedding was trained with.
        name: Of the model, for the error.

    Raises:
        DataError: If one stands nowhere.
    """
    unknown = [item.id for item in ranked if item.id not in known]
    if unknown:
        raise DataError(
            f"{name}: every item to rank must have a vector, and {len(unknown)} of "
            f"{len(ranked)} have none, one is {unknown[0]!r}; an embedding can only be "
            "asked of the catalogue that it was trained with"
        )
    return [known.index_by_id[item.id] for item in ranked]


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
    model: Model, persons: Sequence[Tensor], relation: Tensor, items: Sequence[Tensor]
) -> NDArray[np.float64]:
    """Return the scores of (person, relation, item), a part of the items at a time.

    Args:
        model: In evaluation mode.
        persons: One tensor for each part of an entity, shape ``(persons, *part)``.
        relation: Number of the relation, shape ``(1, 1)``.
        items: As ``persons``, of the items.

    Returns:
        Shape ``(persons, items)``.
    """
    parts = relation_parts(model, relation)
    at_once = max(1, PAIRS_AT_ONCE // max(1, len(persons[0])))
    columns = [
        score_parts(
            model,
            [part.unsqueeze(1) for part in persons],
            parts,
            [part[begin : begin + at_once].unsqueeze(0) for part in items],
        ).double()
        for begin in range(0, len(items[0]), at_once)
    ]
    return torch.cat(columns, dim=1).cpu().numpy()


def rank_rows(
    rows: NDArray[np.float64],
    candidates: NDArray[np.bool_],
    gold: Sequence[NDArray[np.int64]],
    *,
    top_k: int,
) -> list[RankedClient | PkgllmError]:
    """Rank rows of scores as :func:`pkgllm.evaluation.scorer.rank_queries` does."""
    found: list[RankedClient | PkgllmError] = []
    for row, mask, columns in zip(rows, candidates, gold, strict=True):
        if np.isnan(row[mask]).any():
            found.append(DataError("a candidate's score is NaN"))
        else:
            ranks = rank_gold(row, mask, columns)
            found.append(RankedClient(ranks=ranks, top=best_columns(row, mask, top_k)))
    return found
