"""The graph that embeddings learn from: facts of all training clients, public facts of items."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pkgllm.corpora.catalogue import Catalogue, Item
from pkgllm.errors import DataError
from pkgllm.graph.personal_graph import PersonalGraph
from pkgllm.kge.integer_triples import IntegerTriples

_CREDITS = frozenset({"director", "writer", "star"})
"""Relations whose values are people, so that a star who directs is one entity."""


@dataclass(frozen=True, slots=True, eq=False)
class PreferenceGraph:
    """Persons, items and values as entities, with the training facts and public facts as triples.

    Entities are numbered: persons first, in order of their ids, then the items in catalogue
    order, then the values. Every item of the catalogue is an entity, whether or not a fact has it.
    Relations are those that occur in a triple.
    """

    triples: IntegerTriples
    persons: Mapping[str, int]
    """Entity of each training client."""
    items: NDArray[np.int64]
    """Entity of each item, in catalogue order."""
    values: Mapping[tuple[str, str], int]
    """Entity of each (kind, value), for example ``("genre", "Drama")``."""
    relations: Mapping[str, int]
    """Number of each relation, for example ``liked`` or ``genre``."""
    catalogue: Catalogue

    def facts(self, graph: PersonalGraph) -> NDArray[np.int64]:
        """Return a graph's facts as (relation, item), of those that have vectors.

        Facts about items outside the catalogue, and relations without a training fact, are left
        out. Sorted; shape ``(facts, 2)``.
        """
        facts = [
            (self.relations[fact.relation], int(self.items[self.catalogue.index_by_id[fact.tail]]))
            for fact in graph.facts
            if fact.relation in self.relations and fact.tail in self.catalogue
        ]
        return np.array(sorted(facts), dtype=np.int64).reshape(-1, 2)


def make_preference_graph(
    catalogue: Catalogue, training_graphs: Iterable[PersonalGraph]
) -> PreferenceGraph:
    """Join the facts of the training clients and the public facts of the catalogue's items.

    Args:
        catalogue: The items, with their public facts.
        training_graphs: Of each training client the facts that it trains on, and no others.

    Raises:
        DataError: If no fact is a like, a client has two graphs, or a fact is about an item
            outside the catalogue.
    """
    graphs = sorted(training_graphs, key=lambda graph: graph.owner)
    persons = {graph.owner: number for number, graph in enumerate(graphs)}
    if len(persons) < len(graphs):
        raise DataError(
            f"each training client must have one graph, got {len(graphs)} graphs of "
            f"{len(persons)} clients; join the graphs of a client first"
        )
    items = np.arange(len(catalogue), dtype=np.int64) + len(persons)
    values = {
        key: len(persons) + len(catalogue) + number
        for number, key in enumerate(sorted({key for item in catalogue for _, key in _facts(item)}))
    }
    named: list[tuple[int, str, int]] = []
    for graph in graphs:
        for fact in graph.facts:
            if fact.tail not in catalogue:
                raise DataError(
                    f"client {graph.owner!r}: the item {fact.tail!r} is not in the catalogue of "
                    f"{len(catalogue)} items; take both from one corpus"
                )
            tail = int(items[catalogue.index_by_id[fact.tail]])
            named.append((persons[graph.owner], fact.relation, tail))
    for item, entity in zip(catalogue, items.tolist(), strict=True):
        named += [(entity, relation, values[key]) for relation, key in _facts(item)]
    relations = {name: number for number, name in enumerate(sorted({r for _, r, _ in named}))}
    if "liked" not in relations:
        raise DataError(
            f"the training facts of {len(persons)} clients must hold a liked one, got none; there "
            "is nothing to learn likes from, so read more dialogues"
        )
    numbered = np.array([(head, relations[name], tail) for head, name, tail in named])
    return PreferenceGraph(
        triples=IntegerTriples(
            numbered,
            num_entities=len(persons) + len(catalogue) + len(values),
            num_relations=len(relations),
        ),
        persons=persons,
        items=items,
        values=values,
        relations=relations,
        catalogue=catalogue,
    )


def _facts(item: Item) -> list[tuple[str, tuple[str, str]]]:
    """Return an item's public facts as (relation, (kind, value))."""
    return [
        (relation, ("credit" if relation in _CREDITS else relation, value))
        for relation, values in item.facts.items()
        for value in values
    ]
