"""Values of nodes in an RDF graph, with errors that say which is missing or off."""

from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import TypeVar

import rdflib
from rdflib.namespace import RDF
from rdflib.term import Literal, Node, URIRef

from pkgllm.errors import DataError

_Word = TypeVar("_Word", bound=str)


class NodeReader:
    """Looks values up in an RDF graph.

    Args:
        found: The graph.
        where: What errors call it.

    Every method raises :class:`~pkgllm.errors.DataError` where a value is missing, stands twice or
    is of another kind.
    """

    def __init__(self, found: rdflib.Graph, where: str) -> None:
        self._found = found
        self._where = where

    def of_type(self, kind: str) -> list[Node]:
        """Return the nodes of a class, in order of their names."""
        return sorted(self._found.subjects(RDF.type, URIRef(kind), unique=True), key=str)

    def all(self, node: Node, predicate: str) -> list[Node]:
        """Return all values, in order of their names."""
        return sorted(set(self._found.objects(node, URIRef(predicate))), key=str)

    def is_a(self, node: Node, kind: str) -> bool:
        """Tell whether a node is of a class."""
        return (node, RDF.type, URIRef(kind)) in self._found

    def types(self, node: Node) -> list[str]:
        """Return the classes of a node, in order of their names."""
        return sorted(str(kind) for kind in self._found.objects(node, RDF.type))

    def one(self, node: Node, predicate: str) -> Node:
        """Return the one value there must be."""
        found = self.one_or_none(node, predicate)
        if found is None:
            raise DataError(f"{self._where}: {node}: {predicate} must have one value, got none")
        return found

    def one_or_none(self, node: Node, predicate: str) -> Node | None:
        """Return the one value there may be."""
        values = list(self._found.objects(node, URIRef(predicate)))
        if len(values) > 1:
            given = " and ".join(sorted(repr(str(value)) for value in values))
            raise DataError(f"{self._where}: {node}: {predicate} must have one value, got {given}")
        return values[0] if values else None

    def id_of(self, node: Node, inverse: Callable[[str], str]) -> str:
        """Return the id that a node's IRI stands for."""
        try:
            return inverse(str(node))
        except ValueError as error:
            raise DataError(f"{self._where}: {node}: {error}") from error

    def text(self, node: Node, predicate: str) -> str:
        """Return a text."""
        value = self.one(node, predicate)
        if not isinstance(value, Literal):
            raise self.off(node, predicate, "be a text", value)
        return str(value)

    def count(self, node: Node, predicate: str) -> int:
        """Return a whole number from 0."""
        value = self.one(node, predicate)
        number = value.value if isinstance(value, Literal) else None
        if not isinstance(number, int) or isinstance(number, bool) or number < 0:
            raise self.off(node, predicate, "be a whole number from 0", value)
        return number

    def number(self, node: Node, predicate: str) -> float:
        """Return a number."""
        value = self.one(node, predicate)
        number = value.value if isinstance(value, Literal) else None
        if not isinstance(number, int | float | Decimal) or isinstance(number, bool):
            raise self.off(node, predicate, "be a number", value)
        return float(number)

    def time(self, node: Node, predicate: str) -> datetime:
        """Return a moment with its time zone."""
        value = self.one(node, predicate)
        moment = value.value if isinstance(value, Literal) else None
        if not isinstance(moment, datetime) or moment.tzinfo is None:
            raise self.off(node, predicate, "be an xsd:dateTime with a time zone", value)
        return moment

    def choice(self, node: Node, predicate: str, choices: Mapping[str, _Word]) -> _Word:
        """Return the word that an IRI stands for."""
        value = self.one(node, predicate)
        if str(value) not in choices:
            raise self.off(node, predicate, "be one of " + ", ".join(choices), value)
        return choices[str(value)]

    def off(self, node: Node, predicate: str, must: str, given: object) -> DataError:
        """Return the error for a value of the wrong kind."""
        return DataError(f"{self._where}: {node}: {predicate} must {must}, got {str(given)!r}")
