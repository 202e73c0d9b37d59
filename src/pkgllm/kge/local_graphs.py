"""The graph that each client learns from: its own facts and the public ones, which all hold."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pkgllm.errors import DataError
from pkgllm.graph.personal_graph import PersonalGraph
from pkgllm.kge.exchange import PERSONS
from pkgllm.kge.integer_triples import IntegerTriples
from pkgllm.kge.preference_graph import PreferenceGraph
from pkgllm.randomness import stream


@dataclass(frozen=True, slots=True, eq=False)
class LocalGraphs:
    """The part of a preference graph that each client holds.

    All clients number entities alike: the person is 0, then come the items in catalogue order, then
    the values. So a row of a table is the same entity for every client, but for the first.
    """

    graph: PreferenceGraph
    public: NDArray[np.int64]
    """Public facts, shape ``(facts, 3)``."""
    own: Mapping[str, NDArray[np.int64]]
    """Facts of each client, shape ``(facts, 3)``; there may be none."""

    @property
    def items(self) -> NDArray[np.int64]:
        """Entity of each item, in catalogue order."""
        return self.graph.items - len(self.graph.persons) + PERSONS

    def triples(self, client: str | None) -> IntegerTriples:
        """Return all facts of a client; None is a newcomer, who holds the public facts alone."""
        return self._numbered(self.held(client))

    def held(self, client: str | None) -> NDArray[np.int64]:
        """Return the same as rows, in any order; shape ``(facts, 3)``."""
        return self.public if client is None else np.concatenate([self.own[client], self.public])

    def drawn(
        self, client: str | None, limit: int | None, *, seed: int, round_num: int
    ) -> IntegerTriples:
        """Return what a client learns from in a round: its own facts, and some public ones.

        Args:
            client: Id; None for a newcomer.
            limit: Public facts at most, drawn anew for each client and round; None for all.
            seed: The run's seed.
            round_num: The round.
        """
        if limit is None or limit >= len(self.public):
            return self.triples(client)
        draws = stream(seed, "public_facts", "" if client is None else client, round_num)
        some = self.public[draws.choice(len(self.public), size=limit, replace=False)]
        return self._numbered(some if client is None else np.concatenate([self.own[client], some]))

    def facts(self, graph: PersonalGraph) -> NDArray[np.int64]:
        """Return a graph's facts as (relation, item), of those that have vectors."""
        facts = self.graph.facts(graph)
        facts[:, 1] += PERSONS - len(self.graph.persons)
        return facts

    def _numbered(self, triples: NDArray[np.int64]) -> IntegerTriples:
        whole = self.graph.triples
        return IntegerTriples(
            triples,
            num_entities=whole.num_entities - len(self.graph.persons) + PERSONS,
            num_relations=whole.num_relations,
        )


def split_by_client(graph: PreferenceGraph) -> LocalGraphs:
    """Return what each client of a preference graph holds.

    Raises:
        DataError: If there are no clients or no public facts.
    """
    triples, persons = graph.triples.triples, len(graph.persons)
    if not persons:
        raise DataError(
            "embeddings over clients need at least one training client, got none; lower "
            "clients.unseen_share or add clients"
        )
    by_public = triples[:, 0] >= persons
    if not by_public.any():
        raise DataError(
            "embeddings over clients need public facts of the items, which every client holds, "
            f"got none for {len(graph.catalogue)} items; add movie facts"
        )
    shifted = triples.copy()
    shifted[:, ::2] += PERSONS - persons
    shifted[~by_public, 0] = 0
    return LocalGraphs(
        graph,
        shifted[by_public],
        {client: shifted[triples[:, 0] == entity] for client, entity in graph.persons.items()},
    )
