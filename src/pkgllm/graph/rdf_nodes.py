"""Values of nodes in an RDF graph, with errors that name a missing or wrong value."""

from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import TypeVar

import rdflib
from rdflib.namespace import RDF
from rdflib.term import BNode, Literal, Node, URIRef

from pkgllm.errors import DataError
from pkgllm.graph.rdf_text import relative
from pkgllm.graph.vocabulary import spellings

_Word = TypeVar("_Word", bound=str)


class NodeReader:
    """Reads values of nodes in an RDF graph.

    Every method raises :class:`~pkgllm.errors.DataError` if a value is missing, occurs twice or
    is of another type.
    """

    def __init__(self, graph: rdflib.Graph, where: str) -> None:
        self._graph = graph
        self._where = where

    def of_type(self, kind: str) -> list[Node]:
        """Return the nodes of a class, in order of their names."""
        return sorted(self._graph.subjects(RDF.type, URIRef(kind), unique=True), key=str)

    def all(self, node: Node, predicate: str) -> list[Node]:
        """Return all values, in order of their names."""
        values = (
            value
            for spelling in spellings(predicate)
            for value in self._graph.objects(node, URIRef(spelling))
        )
        return sorted(set(values), key=str)

    def is_a(self, node: Node, kind: str) -> bool:
        """Return whether a node is of a class."""
        return (node, RDF.type, URIRef(kind)) in self._graph

    def types(self, node: Node) -> list[str]:
        """Return the classes of a node, in order of their names."""
        return sorted(str(kind) for kind in self._graph.objects(node, RDF.type))

    def one(self, node: Node, predicate: str) -> Node:
        """Return the only value; there must be one."""
        value = self.one_or_none(node, predicate)
        if value is None:
            raise DataError(f"{self._where}: {node}: {predicate} must have one value, got none")
        return value

    def one_or_none(self, node: Node, predicate: str) -> Node | None:
        """Return the only value, or None."""
        values = self.all(node, predicate)
        if len(values) > 1:
            given = " and ".join(sorted(repr(str(value)) for value in values))
            raise DataError(f"{self._where}: {node}: {predicate} must have one value, got {given}")
        return values[0] if values else None

    def id_of(self, node: Node, inverse: Callable[[str], str]) -> str:
        """Return the id in a node's IRI.

        Whitespace in an IRI is kept: it is against the rules, and some programs write it.
        """
        if not isinstance(node, URIRef):
            kind = "a node without a name" if isinstance(node, BNode) else f"the text {node!r}"
            raise DataError(f"{self._where}: an IRI is needed, got {kind}")
        try:
            return inverse(relative(node))
        except ValueError as error:
            raise DataError(f"{self._where}: {relative(node)}: {error}") from error

    def text(self, node: Node, predicate: str) -> str:
        """Return a text; of several in different languages the one without, then English."""
        text = self.text_or_none(node, predicate)
        if text is None:
            raise DataError(f"{self._where}: {node}: {predicate} must have one value, got none")
        return text

    def text_or_none(self, node: Node, predicate: str) -> str | None:
        """Return a text as :meth:`text` does, or None where there is none."""
        by_language: dict[str, str] = {}
        for value in self.all(node, predicate):
            if not isinstance(value, Literal):
                raise self.error(node, predicate, "be a text", value)
            language = (value.language or "").lower()
            if by_language.setdefault(language, str(value)) != str(value):
                where = f" in the language {language}" if language else ""
                raise DataError(
                    f"{self._where}: {node}: {predicate} must have one value{where}, got "
                    f"{by_language[language]!r} and {str(value)!r}"
                )
        if not by_language:
            return None
        return by_language[min(by_language, key=lambda name: (name[:2] not in ("", "en"), name))]

    def count(self, node: Node, predicate: str) -> int:
        """Return a whole number from 0."""
        value = self.one(node, predicate)
        number = value.value if isinstance(value, Literal) else None
        if not isinstance(number, int) or isinstance(number, bool) or number < 0:
            raise self.error(node, predicate, "be a whole number from 0", value)
        return number

    def number(self, node: Node, predicate: str) -> float:
        """Return a number."""
        value = self.one(node, predicate)
        number = value.value if isinstance(value, Literal) else None
        if not isinstance(number, int | float | Decimal) or isinstance(number, bool):
            raise self.error(node, predicate, "be a number", value)
        return float(number)

    def time(self, node: Node, predicate: str) -> datetime:
        """Return a date and time with its time zone."""
        value = self.one(node, predicate)
        moment = value.value if isinstance(value, Literal) else None
        if not isinstance(moment, datetime) or moment.tzinfo is None:
            raise self.error(node, predicate, "be an xsd:dateTime with a time zone", value)
        return moment

    def choice(self, node: Node, predicate: str, choices: Mapping[str, _Word]) -> _Word:
        """Return the word for an IRI."""
        value = self.one(node, predicate)
        if str(value) not in choices:
            raise self.error(node, predicate, "be one of " + ", ".join(choices), value)
        return choices[str(value)]

    def error(self, node: Node, predicate: str, must: str, given: object) -> DataError:
        """Return the error for a value of the wrong type."""
        return DataError(f"{self._where}: {node}: {predicate} must {must}, got {str(given)!r}")
