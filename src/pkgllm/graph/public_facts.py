"""Public facts about items as RDF, and the paths between two items through them.

They contain no personal data: (item, relation such as ``director``, value).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import rdflib
from rdflib.term import Literal, URIRef

from pkgllm.graph import vocabulary


@dataclass(frozen=True, slots=True)
class PublicPath:
    """Two items with the same value: ``one -relation-> value <-other_relation- other``."""

    one: str
    relation: str
    value: str
    other_relation: str
    """Differs from ``relation`` if, for example, the director of one item acts in the other."""
    other: str


class PublicFacts:
    """The public facts of some items as an RDF graph.

    Example:
        >>> facts = PublicFacts({
        ...     "1": {"director": ("Ann Lee",), "genre": ("drama",)},
        ...     "2": {"star": ("Ann Lee",), "genre": ("war",)},
        ... })
        >>> for path in facts.between("1", "2"):
        ...     print(path.relation, path.value, path.other_relation)
        director Ann Lee star
    """

    def __init__(self, facts: Mapping[str, Mapping[str, Sequence[str]]]) -> None:
        self._graph = rdflib.Graph(bind_namespaces="none")
        for item, values_by_relation in facts.items():
            for relation, values in values_by_relation.items():
                predicate = URIRef(vocabulary.PUBLIC_RELATIONS.iri(relation))
                for value in values:
                    self._graph.add((_node(item), predicate, Literal(value)))
        # Most pairs of items share no value; comparing sets is much faster than a graph query.
        self._values = {item: frozenset(self._graph.objects(_node(item))) for item in facts}

    def between(self, one: str, other: str) -> tuple[PublicPath, ...]:
        """Return every path through one value between two different items, sorted."""
        return tuple(sorted(self._between(one, other), key=_sort_key))

    def _between(self, one: str, other: str) -> Iterator[PublicPath]:
        if one == other:
            return
        empty: frozenset[rdflib.term.Node] = frozenset()
        for value in self._values.get(one, empty) & self._values.get(other, empty):
            for predicate in self._graph.predicates(_node(one), value):
                for other_predicate in self._graph.predicates(_node(other), value):
                    yield PublicPath(
                        one,
                        vocabulary.PUBLIC_RELATIONS.id(str(predicate)),
                        str(value),
                        vocabulary.PUBLIC_RELATIONS.id(str(other_predicate)),
                        other,
                    )


def _node(item: str) -> URIRef:
    return URIRef(vocabulary.ITEMS.iri(item))


def _sort_key(path: PublicPath) -> tuple[str, str, str]:
    return path.relation, path.value, path.other_relation
