"""Personal graphs as RDF: JSON-LD and Turtle, written and read back equal.

The only door to rdflib. Reading never touches the network: a document that refers to a remote
context is refused. ``docs/vocabulary.md`` explains the terms.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import rdflib
from rdflib.namespace import RDF
from rdflib.plugins.parsers.notation3 import BadSyntax
from rdflib.term import Literal, Node, URIRef

from pkgllm.errors import DataError
from pkgllm.files import write_atomically
from pkgllm.graph import vocabulary
from pkgllm.graph.personal_graph import Fact, Moment, PersonalGraph, Provenance

_Word = TypeVar("_Word", bound=str)
_ENDINGS = ".jsonld, .json or .ttl"


def to_jsonld(graph: PersonalGraph) -> str:
    """Return the graph as one nested JSON-LD document with its context inline.

    The document is put together here, facts in order of time, because rdflib's own writer lists
    films and facts side by side; a test holds its triples equal to those of :func:`to_turtle`.
    """
    document = {
        "@context": dict(vocabulary.CONTEXT),
        "@id": vocabulary.owner_iri(graph.owner),
        "@type": "Owner",
        "facts": [_fact_to_jsonld(graph.owner, fact) for fact in graph.facts],
    }
    return json.dumps(document, ensure_ascii=False, indent=2) + "\n"


def _fact_to_jsonld(owner: str, fact: Fact) -> dict[str, object]:
    return {
        "@id": vocabulary.fact_iri(owner, fact.tail),
        "@type": "Fact",
        "relation": fact.relation,
        "item": {
            "@id": vocabulary.item_iri(fact.tail),
            "@type": "Movie",
            "name": fact.name,
            "identifier": fact.tail,
        },
        "session": fact.time.session,
        "position": fact.time.position,
        "source": fact.provenance.source,
        "document": vocabulary.document_iri(fact.provenance.document),
    }


def from_jsonld(text: str, *, where: str) -> PersonalGraph:
    """Read a graph from JSON-LD.

    Args:
        text: The document.
        where: What errors call it, for example the file's path.

    Raises:
        DataError: If the text is not JSON, asks for a remote context, or is not a personal graph.
    """
    try:
        _refuse_remote_contexts(json.loads(text), where)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{where}:{error.lineno}: not JSON: {error.msg} (column {error.colno}); "
            "the file may be cut off"
        ) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not a personal graph: {error}") from error
    found = rdflib.Graph(bind_namespaces="none")
    try:
        found.parse(data=text, format="json-ld")
    except Exception as error:
        # rdflib meets malformed JSON-LD with whatever its code runs into, KeyError included.
        raise DataError(f"{where}: not JSON-LD: {type(error).__name__}: {error}") from error
    return _from_rdf(found, where)


def _refuse_remote_contexts(value: Any, where: str, *, in_context: bool = False) -> None:
    if isinstance(value, str) and in_context:
        raise DataError(
            f"{where}: the JSON-LD context must stand in the document, got the address {value!r}; "
            "nothing is fetched from the network: write the context out"
        )
    if isinstance(value, list):
        for part in value:
            _refuse_remote_contexts(part, where, in_context=in_context)
    elif isinstance(value, dict):
        for key, part in value.items():
            _refuse_remote_contexts(part, where, in_context=key in ("@context", "@import"))


def to_turtle(graph: PersonalGraph) -> str:
    """Return the graph as Turtle, with the same triples as :func:`to_jsonld`."""
    return _to_rdf(graph).serialize(format="turtle")


def from_turtle(text: str, *, where: str) -> PersonalGraph:
    """Read a graph from Turtle.

    Args:
        text: The document.
        where: What errors call it, for example the file's path.

    Raises:
        DataError: If the text is not Turtle or is not a personal graph.
    """
    found = rdflib.Graph(bind_namespaces="none")
    try:
        found.parse(data=text, format="turtle")
    except BadSyntax as error:
        reason = " ".join(error.message.split())
        raise DataError(
            f"{where}:{error.lines + 1}: not Turtle: {reason}; the file may be cut off"
        ) from error
    except Exception as error:
        # Beside BadSyntax, rdflib lets errors of its own code through on malformed text.
        raise DataError(f"{where}: not Turtle: {type(error).__name__}: {error}") from error
    return _from_rdf(found, where)


def read_graph(path: Path) -> PersonalGraph:
    """Read a graph from a file, JSON-LD or Turtle by its ending.

    Raises:
        DataError: If the file cannot be read, or does not hold a personal graph.
    """
    reader = {".jsonld": from_jsonld, ".json": from_jsonld, ".ttl": from_turtle}.get(
        path.suffix.lower()
    )
    if reader is None:
        raise DataError(f"{path}: a graph's file must end in {_ENDINGS}, got {path.suffix!r}")
    try:
        # Not read_text, which would turn a carriage return inside a Turtle literal into a newline.
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text: {error.reason} at byte {error.start}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    return reader(text, where=str(path))


def write_graph(graph: PersonalGraph, path: Path) -> None:
    """Write a graph to a file, whole or not at all, JSON-LD or Turtle by its ending.

    Raises:
        DataError: If the ending is another one.
        RunError: If the file cannot be written.
    """
    writer = {".jsonld": to_jsonld, ".json": to_jsonld, ".ttl": to_turtle}.get(path.suffix.lower())
    if writer is None:
        raise DataError(f"{path}: a graph's file must end in {_ENDINGS}, got {path.suffix!r}")
    write_atomically(path, writer(graph))


def _to_rdf(graph: PersonalGraph) -> rdflib.Graph:
    made = rdflib.Graph(bind_namespaces="none")
    made.bind("pkg", vocabulary.NAMESPACE)
    made.bind("schema", vocabulary.SCHEMA)
    made.bind("prov", vocabulary.PROV)
    owner = URIRef(vocabulary.owner_iri(graph.owner))
    made.add((owner, RDF.type, URIRef(vocabulary.OWNER)))
    for fact in graph.facts:
        node = URIRef(vocabulary.fact_iri(graph.owner, fact.tail))
        item = URIRef(vocabulary.item_iri(fact.tail))
        document = URIRef(vocabulary.document_iri(fact.provenance.document))
        source = URIRef(vocabulary.IRI_BY_SOURCE[fact.provenance.source])
        made.add((owner, URIRef(vocabulary.HAS_FACT), node))
        made.add((node, RDF.type, URIRef(vocabulary.FACT)))
        relation = URIRef(vocabulary.IRI_BY_RELATION[fact.relation])
        made.add((node, URIRef(vocabulary.RELATION), relation))
        made.add((node, URIRef(vocabulary.ITEM), item))
        made.add((node, URIRef(vocabulary.SESSION), Literal(fact.time.session)))
        made.add((node, URIRef(vocabulary.POSITION), Literal(fact.time.position)))
        made.add((node, URIRef(vocabulary.ATTRIBUTED_TO), source))
        made.add((node, URIRef(vocabulary.DERIVED_FROM), document))
        made.add((item, RDF.type, URIRef(vocabulary.MOVIE)))
        made.add((item, URIRef(vocabulary.NAME), Literal(fact.name)))
        made.add((item, URIRef(vocabulary.IDENTIFIER), Literal(fact.tail)))
    return made


def _from_rdf(found: rdflib.Graph, where: str) -> PersonalGraph:
    owners = sorted(found.subjects(RDF.type, URIRef(vocabulary.OWNER), unique=True), key=str)
    if len(owners) != 1:
        given = " and ".join(str(owner) for owner in owners) or "none"
        raise DataError(
            f"{where}: a personal graph has one node of type {vocabulary.OWNER}, got {given}"
        )
    reader = _Reader(found, where)
    facts = set(found.objects(owners[0], URIRef(vocabulary.HAS_FACT)))
    for node in sorted(found.subjects(RDF.type, URIRef(vocabulary.FACT), unique=True), key=str):
        if node not in facts:
            raise DataError(f"{where}: {node}: a fact must belong to the owner, {owners[0]}")
    owner = reader.id_of(owners[0], vocabulary.owner_id)
    try:
        return PersonalGraph(owner, tuple(reader.fact(node) for node in sorted(facts, key=str)))
    except ValueError as error:
        raise DataError(f"{where}: {error}") from error


class _Reader:
    """Looks values up in an RDF graph, and says where one is missing or off."""

    def __init__(self, found: rdflib.Graph, where: str) -> None:
        self._found = found
        self._where = where

    def fact(self, node: Node) -> Fact:
        item = self._one(node, vocabulary.ITEM)
        tail = self.id_of(item, vocabulary.item_id)
        identifier = self._text(item, vocabulary.IDENTIFIER)
        if identifier != tail:
            raise self._off(
                item, vocabulary.IDENTIFIER, f"be {tail!r}, as its IRI says", identifier
            )
        document = self._one(node, vocabulary.DERIVED_FROM)
        return Fact(
            relation=self._choice(node, vocabulary.RELATION, vocabulary.RELATION_BY_IRI),
            tail=tail,
            name=self._text(item, vocabulary.NAME),
            time=Moment(
                self._count(node, vocabulary.SESSION), self._count(node, vocabulary.POSITION)
            ),
            provenance=Provenance(
                self._choice(node, vocabulary.ATTRIBUTED_TO, vocabulary.SOURCE_BY_IRI),
                self.id_of(document, vocabulary.document_id),
            ),
        )

    def id_of(self, node: Node, inverse: Callable[[str], str]) -> str:
        try:
            return inverse(str(node))
        except ValueError as error:
            raise DataError(f"{self._where}: {node}: {error}") from error

    def _one(self, node: Node, predicate: str) -> Node:
        values = list(self._found.objects(node, URIRef(predicate)))
        if len(values) != 1:
            given = " and ".join(sorted(repr(str(value)) for value in values)) or "none"
            raise DataError(f"{self._where}: {node}: {predicate} must have one value, got {given}")
        return values[0]

    def _text(self, node: Node, predicate: str) -> str:
        value = self._one(node, predicate)
        if not isinstance(value, Literal):
            raise self._off(node, predicate, "be a text", value)
        return str(value)

    def _count(self, node: Node, predicate: str) -> int:
        value = self._one(node, predicate)
        number = value.value if isinstance(value, Literal) else None
        if not isinstance(number, int) or isinstance(number, bool) or number < 0:
            raise self._off(node, predicate, "be a whole number from 0", value)
        return number

    def _choice(self, node: Node, predicate: str, choices: Mapping[str, _Word]) -> _Word:
        value = self._one(node, predicate)
        if str(value) not in choices:
            raise self._off(node, predicate, "be one of " + ", ".join(choices), value)
        return choices[str(value)]

    def _off(self, node: Node, predicate: str, must: str, given: object) -> DataError:
        return DataError(f"{self._where}: {node}: {predicate} must {must}, got {str(given)!r}")
