"""Personal graphs and records as RDF: JSON-LD and Turtle, written and read back equal.

This module and its neighbours ``rdf_text`` and ``rdf_nodes`` are the only door to rdflib. Reading
needs no network: a document that refers to a remote context is refused.
``docs/vocabulary.md`` explains the terms.
"""

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import rdflib
from rdflib.term import Node

from pkgllm.errors import DataError
from pkgllm.files import write_atomically
from pkgllm.graph import vocabulary
from pkgllm.graph.personal_graph import MOVIE, Fact, Moment, PersonalGraph, Provenance
from pkgllm.graph.personal_record import Edit, PersonalRecord, Statement
from pkgllm.graph.rdf_nodes import NodeReader
from pkgllm.graph.rdf_text import format_of, parse_jsonld, read_rdf
from pkgllm.graph.rules import Rule


def to_jsonld(content: PersonalGraph | PersonalRecord) -> str:
    """Return a graph or a record as one nested JSON-LD document with its context inline.

    Facts are in order of time and contain their item; rdflib's own writer lists items and facts
    side by side. A record without edits and rules is written like its graph.
    """
    record = PersonalRecord.of(content) if isinstance(content, PersonalGraph) else content
    owner = record.owner
    plain = not (record.edits or record.rules)
    document: dict[str, object] = {
        "@context": dict(vocabulary.CONTEXT if plain else vocabulary.RECORD_CONTEXT),
        "@id": vocabulary.OWNERS.iri(owner),
        "@type": "Owner",
    }
    made_by = {s.content: s.made_by for s in record.statements if s.ended_by is None}
    document["facts"] = [
        _nested(owner, Statement(fact, made_by[fact])) for fact in record.graph.facts
    ]
    if not plain:
        document["rules"] = [
            _nested(owner, Statement(rule, made_by[rule])) for rule in record.rules
        ]
        document["past"] = [_nested(owner, statement) for statement in record.past]
        document["edits"] = [
            {
                "@id": vocabulary.EDITS.iri(owner, edit.number),
                "@type": "Edit",
                "number": edit.number,
                "action": edit.action,
                "time": edit.time.isoformat(),
            }
            for edit in record.edits
        ]
    return json.dumps(document, ensure_ascii=False, indent=2) + "\n"


def _nested(owner: str, statement: Statement) -> dict[str, object]:
    content, ended_by = statement.content, statement.ended_by
    past = "" if ended_by is None else "Past"
    written: dict[str, object]
    if isinstance(content, Rule):
        written = {
            "@id": vocabulary.RULES.iri(owner, content.id),
            "@type": f"{past}Rule",
            "identifier": content.id,
            "direction": content.direction,
            "scope": content.scope,
            "value": content.value,
            # A decimal, because rdflib's Turtle truncates doubles after seven digits.
            "strength": f"{Decimal(repr(content.strength)):f}",
        }
    else:
        written = {
            "@id": vocabulary.FACTS.iri(owner, content.tail)
            if ended_by is None
            else vocabulary.PAST_FACTS.iri(owner, content.tail, ended_by),
            "@type": f"{past}Fact",
            "relation": content.relation,
            "item": {
                "@id": vocabulary.ITEMS.iri(content.tail),
                "@type": _item_type(content.item_class),
                "name": content.name,
                "identifier": content.tail,
            },
            "session": content.time.session,
            "position": content.time.position,
        }
    written["source"] = content.provenance.source
    written["document"] = vocabulary.DOCUMENTS.iri(content.provenance.document)
    if statement.made_by is not None:
        written["madeBy"] = vocabulary.EDITS.iri(owner, statement.made_by)
    if ended_by is not None:
        written["endedBy"] = vocabulary.EDITS.iri(owner, ended_by)
    return written


def _item_type(item_class: str) -> str:
    # The context has a short term for films alone.
    return MOVIE if item_class == MOVIE else vocabulary.item_class_iri(item_class)


def to_turtle(content: PersonalGraph | PersonalRecord) -> str:
    """Return a graph or a record as Turtle, with the same triples as :func:`to_jsonld`."""
    graph = parse_jsonld(to_jsonld(content), where="the record to write")
    for prefix in ("pkg", "schema", "prov"):
        graph.bind(prefix, vocabulary.CONTEXT[prefix])
    return graph.serialize(format="turtle")


def read_graph(path: Path) -> PersonalGraph:
    """Read the current graph from a file, JSON-LD or Turtle by its ending.

    Raises:
        DataError: If the file cannot be read, or does not hold a personal graph.
    """
    return read_record(path).graph


def read_record(path: Path) -> PersonalRecord:
    """Read a record from a file, JSON-LD or Turtle by its ending.

    Raises:
        DataError: If the file cannot be read, or does not hold a personal graph.
    """
    return record_of(read_rdf(path), str(path))


def write_graph(
    content: PersonalGraph | PersonalRecord, path: Path, *, private: bool = False
) -> None:
    """Write a graph or a record to a file atomically, in the format of its ending.

    Args:
        content: The graph or the record.
        path: The file.
        private: Whether the file gets mode 0600.

    Raises:
        DataError: If the ending is not that of JSON-LD or Turtle.
        RunError: If the file cannot be written.
    """
    write = {"json-ld": to_jsonld, "turtle": to_turtle}[format_of(path)]
    write_atomically(path, write(content), private=private)


def record_of(graph: rdflib.Graph, where: str) -> PersonalRecord:
    """Return the record in an RDF graph.

    Raises:
        DataError: If the graph contains no valid record.
    """
    reader = NodeReader(graph, where)
    owners = reader.of_type(vocabulary.OWNER)
    if len(owners) != 1:
        given = " and ".join(str(owner) for owner in owners) or "none"
        raise DataError(
            f"{where}: a personal graph has one node of type {vocabulary.OWNER}, got {given}"
        )
    (owner,) = owners
    for kind, what, link in (
        (vocabulary.FACT, "fact", vocabulary.HAS_FACT),
        (vocabulary.RULE, "rule", vocabulary.HAS_RULE),
        (vocabulary.EDIT, "edit", vocabulary.HAS_EDIT),
        (vocabulary.PAST_FACT, "past fact", vocabulary.HAS_PAST),
        (vocabulary.PAST_RULE, "past rule", vocabulary.HAS_PAST),
    ):
        own = set(reader.all(owner, link))
        for node in reader.of_type(kind):
            if node not in own:
                raise DataError(f"{where}: {node}: a {what} must belong to the owner, {owner}")
    edits = [_edit(reader, node) for node in reader.all(owner, vocabulary.HAS_EDIT)]
    try:
        return PersonalRecord(
            reader.id_of(owner, vocabulary.OWNERS.id),
            tuple(_statements(reader, owner)),
            tuple(sorted(edits, key=lambda edit: edit.number)),
        )
    except ValueError as error:
        raise DataError(f"{where}: {error}") from error


def _statements(reader: NodeReader, owner: Node) -> Iterator[Statement]:
    for node in reader.all(owner, vocabulary.HAS_FACT):
        yield Statement(_fact(reader, node), _edit_number(reader, node, vocabulary.GENERATED_BY))
    for node in reader.all(owner, vocabulary.HAS_RULE):
        yield Statement(_rule(reader, node), _edit_number(reader, node, vocabulary.GENERATED_BY))
    for node in reader.all(owner, vocabulary.HAS_PAST):
        read = _rule if reader.is_a(node, vocabulary.PAST_RULE) else _fact
        reader.one(node, vocabulary.INVALIDATED_BY)
        yield Statement(
            read(reader, node),
            _edit_number(reader, node, vocabulary.GENERATED_BY),
            _edit_number(reader, node, vocabulary.INVALIDATED_BY),
        )


def _edit_number(reader: NodeReader, node: Node, predicate: str) -> int | None:
    edit = reader.one_or_none(node, predicate)
    return None if edit is None else reader.count(edit, vocabulary.NUMBER)


def _fact(reader: NodeReader, node: Node) -> Fact:
    item = reader.one(node, vocabulary.ITEM)
    tail = reader.id_of(item, vocabulary.ITEMS.id)
    identifier = reader.text(item, vocabulary.IDENTIFIER)
    if identifier != tail:
        raise reader.error(item, vocabulary.IDENTIFIER, f"be {tail!r}, as its IRI says", identifier)
    return Fact(
        relation=reader.choice(node, vocabulary.RELATION, vocabulary.RELATION_BY_IRI),
        tail=tail,
        name=reader.text(item, vocabulary.NAME),
        time=Moment(
            reader.count(node, vocabulary.SESSION), reader.count(node, vocabulary.POSITION)
        ),
        provenance=_provenance(reader, node),
        item_class=_item_class(reader, item),
    )


def _item_class(reader: NodeReader, item: Node) -> str:
    classes = sorted(filter(None, (vocabulary.item_class(iri) for iri in reader.types(item))))
    # Others may add classes to a film, and an item without a class is a film.
    return MOVIE if MOVIE in classes or not classes else classes[0]


def _rule(reader: NodeReader, node: Node) -> Rule:
    return Rule(
        id=reader.text(node, vocabulary.IDENTIFIER),
        scope=reader.text(node, vocabulary.SCOPE),
        value=reader.text(node, vocabulary.VALUE),
        direction=reader.choice(node, vocabulary.DIRECTION, vocabulary.DIRECTION_BY_IRI),
        strength=reader.number(node, vocabulary.STRENGTH),
        provenance=_provenance(reader, node),
    )


def _provenance(reader: NodeReader, node: Node) -> Provenance:
    document = reader.one(node, vocabulary.DERIVED_FROM)
    return Provenance(
        reader.id_of(reader.one(node, vocabulary.ATTRIBUTED_TO), vocabulary.source_of),
        reader.id_of(document, vocabulary.DOCUMENTS.id),
    )


def _edit(reader: NodeReader, node: Node) -> Edit:
    return Edit(
        reader.count(node, vocabulary.NUMBER),
        reader.text(node, vocabulary.ACTION),
        reader.time(node, vocabulary.ENDED_AT),
    )
