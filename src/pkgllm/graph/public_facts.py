"""Public facts about items as RDF, and what connects two items through them.

Nothing of a person is in here: an item is a head, a relation such as ``director`` leads to a value.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import rdflib
from rdflib.term import Literal, URIRef

from pkgllm.graph import vocabulary


@dataclass(frozen=True, slots=True)
class PublicPath:
    """Two items that lead to the same value: ``one -relation-> value <-other_relation- other``."""

    one: str
    relation: str
    value: str
    other_relation: str
    """Another one where, for example, who directed one item plays in the other."""
    other: str


class PublicFacts:
    """The public facts of some items as an RDF graph.

    Args:
        facts: Values by relation by item id.

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
                predicate = URIRef(vocabulary.public_relation_iri(relation))
                for value in values:
                    self._graph.add((_node(item), predicate, Literal(value)))
        # Most pairs of items share no value, which sets tell much faster than the graph does.
        self._values = {item: frozenset(self._graph.objects(_node(item))) for item in facts}

    def between(self, one: str, other: str) -> tuple[PublicPath, ...]:
        """Return every path of two steps between two items, sorted; none from one to itself."""
        return tuple(sorted(self._between(one, other), key=_sorting))

    def _between(self, one: str, other: str) -> Iterator[PublicPath]:
        if one == other:
            return
        nothing: frozenset[rdflib.term.Node] = frozenset()
        for value in self._values.get(one, nothing) & self._values.get(other, nothing):
            for predicate in self._graph.predicates(_node(one), value):
                for back in self._graph.predicates(_node(other), value):
                    yield PublicPath(
                        one,
                        vocabulary.public_relation(str(predicate)),
                        str(value),
                        vocabulary.public_relation(str(back)),
                        other,
                    )


def _node(item: str) -> URIRef:
    return URIRef(vocabulary.item_iri(item))


def _sorting(path: PublicPath) -> tuple[str, str, str]:
    return path.relation, path.value, path.other_relation
