"""Embeddings under the protocol of all models: (person, liked, ?) over the whole catalogue."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from pykeen.models import InductiveNodePiece
from torch import Tensor

from pkgllm.corpora.catalogue import Catalogue
from pkgllm.errors import DataError
from pkgllm.evaluation.scorer import ClientQueries
from pkgllm.kge.fitted_scorer import FoldInScorer, has_news, score_items, without_facts
from pkgllm.kge.fold_in import Visible, fold_in, mean_person, tokenized_persons
from pkgllm.kge.frozen import SharedModel
from pkgllm.kge.preference_graph import PreferenceGraph
from pkgllm.kge.pykeen_door import Model, entity_parts, model_device, relation_parts
from pkgllm.kge.settings import FoldIn


class EmbeddingScorer(FoldInScorer):
    """Score items by a trained embedding, for a person with the vector of the visible facts.

    A training client starts at its own vector, any other person at the mean of the training
    clients. Then the visible facts are fit (:func:`pkgllm.kge.fold_in.fold_in`), with two
    exceptions: a person without facts is scored as the mean person, and a training client whose
    visible facts were all trained on keeps the trained vector. So facts that became visible since,
    as those of the validation, do count. NodePiece computes every person from the visible facts.

    Items tie where their scores are equal, as those of ReLU decoders often are.

    Items without a vector cannot be ranked, and facts about them are left out of the fit.

    Args:
        name: In results.
        model: Trained on ``graph.triples``, in evaluation mode.
        graph: Of its training.
        settings: Of the fit.
        seed: The run's seed.
        catalogue: The items to rank, in column order; those of ``graph`` when absent.

    Raises:
        DataError: If the model and the graph do not have the same entities, or an item to rank is
            none of them.
    """

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
        super().__init__(
            name, ranked=graph.catalogue if catalogue is None else catalogue, known=graph.catalogue
        )
        self._model, self._graph, self._settings, self._seed = model, graph, settings, seed
        self._frozen = SharedModel(model)
        heads = graph.triples.triples
        self._trained_facts = {
            person: heads[heads[:, 0] == entity][:, 1:] for person, entity in graph.persons.items()
        }
        device = model_device(model)
        ranked = torch.from_numpy(graph.items[self._places]).to(device)
        liked = torch.tensor([graph.relations["liked"]], device=device)
        persons = torch.tensor(list(graph.persons.values()), device=device)
        with torch.no_grad():
            self._liked = [part.unsqueeze(0) for part in relation_parts(model, liked)]
            self._items = [part.unsqueeze(0) for part in entity_parts(model, ranked)]
            self._trained = entity_parts(model, persons)
            self._prior = mean_person(model, persons)

    def _score(self, queries: Sequence[ClientQueries]) -> NDArray[np.float64]:
        return score_items(self._frozen, self._persons(queries), self._liked, self._items)

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
            self._frozen,
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
