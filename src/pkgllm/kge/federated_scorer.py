"""Embeddings that were trained over clients, under the protocol of all models."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pkgllm.corpora.catalogue import Catalogue
from pkgllm.evaluation.scorer import ClientQueries
from pkgllm.kge.federated_embeddings import FederatedEmbeddings
from pkgllm.kge.fitted_scorer import FoldInScorer, has_news, score_items, without_facts
from pkgllm.kge.fold_in import Visible, fold_in
from pkgllm.kge.frozen import OwnModels, SharedModel
from pkgllm.kge.pykeen_door import Model, entity_parts, model_device
from pkgllm.kge.settings import FoldIn


class FederatedScorer(FoldInScorer):
    """Score items for each client by the model that the client has at the end.

    A training client is scored by its own model: its vector, its tables of what is not exchanged,
    and the server's tables of what is. Any other person is a newcomer
    (:meth:`pkgllm.kge.federated_embeddings.FederatedEmbeddings.local_model`). Then the visible
    facts are fit (:func:`pkgllm.kge.fold_in.fold_in`) on the client; nothing is sent. A training
    client starts at its own vector and a newcomer where all clients began: the mean person is
    unknown, since no person's vector leaves its client. A person without facts stays there; in
    isolation so does a training client without a new visible fact. In the other exchanges the
    tables have changed since a client's last round, so its facts are fit to them.

    Args:
        name: In results.
        trained: The embeddings.
        settings: Of the fit.
        seed: The run's seed.
        catalogue: The items to rank, in column order; those of training when absent.

    Raises:
        DataError: If an item to rank has no vector.
    """

    def __init__(
        self,
        name: str,
        trained: FederatedEmbeddings,
        *,
        settings: FoldIn,
        seed: int,
        catalogue: Catalogue | None = None,
    ) -> None:
        known = trained.graphs.graph.catalogue
        super().__init__(name, ranked=known if catalogue is None else catalogue, known=known)
        self._trained, self._settings, self._seed = trained, settings, seed
        self._graphs = trained.graphs

    @property
    def clients_at_once(self) -> int:
        """Persons that are scored together; fewer where each has tables of its own in memory."""
        return super().clients_at_once if self._trained.alike else 16

    def _score(self, queries: Sequence[ClientQueries]) -> NDArray[np.float64]:
        graphs, owners = self._graphs, [self._owner(query) for query in queries]
        distinct = list(dict.fromkeys(owners))
        starts: dict[str | None, list[Tensor]] = {}

        def model_of(owner: str | None) -> Model:
            model = self._trained.local_model(owner)
            starts[owner] = _person(model)
            return model

        models = map(model_of, distinct)
        frozen: SharedModel | OwnModels
        if self._trained.alike:
            *_, last = models
            frozen = SharedModel(last)
        else:
            frozen = OwnModels.copied(models, [distinct.index(owner) for owner in owners])
        fitted = fold_in(
            frozen,
            [
                self._visible(query, starts[owner])
                for query, owner in zip(queries, owners, strict=True)
            ],
            prior=starts[owners[0]],
            items=graphs.items,
            settings=self._settings,
            seed=self._seed,
        )
        rows = torch.arange(len(queries), device=frozen.device)
        liked = torch.tensor([[graphs.graph.relations["liked"]]], device=frozen.device)
        ranked = torch.from_numpy(graphs.items[self._places]).to(frozen.device).unsqueeze(0)
        return score_items(
            frozen, fitted, frozen.relations(rows, liked), frozen.entities(rows, ranked)
        )

    def _owner(self, query: ClientQueries) -> str | None:
        """Return the client whose model scores a query; None for a newcomer's model."""
        seen = query.seen_in_training and query.client in self._graphs.own
        return query.client if seen else None

    def _visible(self, query: ClientQueries, start: Sequence[Tensor]) -> Visible:
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
