"""Embeddings that were trained over clients, under the protocol of all models."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pkgllm.baselines.embedding_scorer import (
    has_news,
    known_places,
    rank_rows,
    score_items,
    without_facts,
)
from pkgllm.baselines.federated_embeddings import FederatedEmbeddings
from pkgllm.baselines.fold_in import FoldIn, Visible, fold_in
from pkgllm.baselines.pykeen_door import Model, entity_parts, model_device
from pkgllm.corpora.catalogue import Catalogue
from pkgllm.errors import PkgllmError
from pkgllm.evaluation.scorer import ClientQueries, RankedClient


class FederatedScorer:
    """Score items for each client by the model that the client has at the end.

    A training client's own model is asked: its vector, its tables of what is not exchanged, and the
    server's tables of what is. Everybody else is a newcomer
    (:meth:`pkgllm.baselines.federated_embeddings.FederatedEmbeddings.local_model`). Then the
    visible facts are fit (:func:`pkgllm.baselines.fold_in.fold_in`), which a client does by itself
    and tells nobody. A training client starts at its own vector and a newcomer where all clients
    began: the mean person is not known, since nobody's vector leaves them. Somebody without facts
    stays there; in isolation so does a training client of whom nothing new is visible. In the other
    exchanges the tables have moved on since a client's last round, so its facts are fit to them.

    Args:
        name: In results.
        trained: What is asked.
        settings: Of the fit.
        seed: The run's seed.
        catalogue: The items to rank, in column order; those of training when absent.

    Raises:
        DataError: If an item to rank has no vector.
    """

    clients_at_once = 64
    """Persons that are asked for together."""

    def __init__(
        self,
        name: str,
        trained: FederatedEmbeddings,
        *,
        settings: FoldIn,
        seed: int,
        catalogue: Catalogue | None = None,
    ) -> None:
        self.name = name
        self._trained, self._settings, self._seed = trained, settings, seed
        self._graphs = trained.graphs
        known = self._graphs.graph.catalogue
        places = known_places(known if catalogue is None else catalogue, known, name=name)
        self._ranked = self._graphs.items[places]

    def scores(self, queries: Sequence[ClientQueries]) -> NDArray[np.float64]:
        """Return the models' scores, shape ``(len(queries), len(catalogue))``."""
        found = np.empty((len(queries), len(self._ranked)))
        places: dict[str | None, list[int]] = defaultdict(list)
        for place, query in enumerate(queries):
            places[None if self._trained.alike else self._owner(query)].append(place)
        for owner, rows in places.items():
            starts = [self._start(queries[row]) for row in rows] if self._trained.alike else None
            model = self._trained.local_model(owner)
            for begin in range(0, len(rows), self.clients_at_once):
                part = rows[begin : begin + self.clients_at_once]
                found[part] = self._score(
                    model,
                    [queries[row] for row in part],
                    starts[begin : begin + self.clients_at_once] if starts else [None] * len(part),
                )
        return found

    def rank(
        self,
        queries: Sequence[ClientQueries],
        candidates: NDArray[np.bool_],
        gold: Sequence[NDArray[np.int64]],
        *,
        top_k: int,
    ) -> Sequence[RankedClient | PkgllmError]:
        """Rank as :func:`pkgllm.evaluation.scorer.rank_queries`."""
        return rank_rows(self.scores(queries), candidates, gold, top_k=top_k)

    def _owner(self, query: ClientQueries) -> str | None:
        """Return whose model is asked; None for a newcomer's."""
        seen = query.seen_in_training and query.client in self._graphs.own
        return query.client if seen else None

    def _start(self, query: ClientQueries) -> list[Tensor]:
        return _person(self._trained.local_model(self._owner(query)))

    def _score(
        self,
        model: Model,
        queries: Sequence[ClientQueries],
        starts: Sequence[Sequence[Tensor] | None],
    ) -> NDArray[np.float64]:
        graphs, device = self._graphs, model_device(model)
        persons = [
            self._visible(query, start) for query, start in zip(queries, starts, strict=True)
        ]
        fitted = fold_in(
            model,
            persons,
            prior=_person(model),
            items=graphs.items,
            settings=self._settings,
            seed=self._seed,
        )
        liked = torch.tensor([[graphs.graph.relations["liked"]]], device=device)
        with torch.no_grad():
            items = entity_parts(model, torch.from_numpy(self._ranked).to(device))
        return score_items(model, fitted, liked, items)

    def _visible(self, query: ClientQueries, start: Sequence[Tensor] | None) -> Visible:
        person = Visible(query.client, self._graphs.facts(query.graph), start)
        owner, alone = self._owner(query), self._trained.federation.exchange == "isolation"
        if owner is None or not alone or not self._trained.took_part(owner):
            return person
        known = self._graphs.own[owner][:, 1:]
        return person if has_news(person, known) else without_facts(person)


@torch.no_grad()
def _person(model: Model) -> list[Tensor]:
    """Return the vector of a local model's person."""
    person = torch.zeros(1, dtype=torch.long, device=model_device(model))
    return [part[0].detach().clone() for part in entity_parts(model, person)]
