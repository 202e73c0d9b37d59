"""A person's record out of an RDF graph, and which node of the graph says what."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import rdflib
from rdflib.term import BNode, Node

from pkgllm.errors import DataError
from pkgllm.graph import vocabulary
from pkgllm.graph.personal_graph import MOVIE, Fact, Moment, Provenance
from pkgllm.graph.personal_record import Edit, PersonalRecord, Statement
from pkgllm.graph.rdf_nodes import NodeReader
from pkgllm.graph.rules import Rule


@dataclass(frozen=True, slots=True)
class Nodes:
    """The nodes of a file that a record was read from, by what they stand for."""

    owner: Node
    items: Mapping[str, Node] = field(default_factory=dict)
    """By id."""
    documents: Mapping[str, Node] = field(default_factory=dict)
    """By id."""
    statements: Mapping[Statement, Node] = field(default_factory=dict)
    described: frozenset[tuple[int, str]] = frozenset()
    """Edits and items of theirs that the file had described before."""


def read_nodes(graph: rdflib.Graph, where: str) -> tuple[PersonalRecord, Nodes]:
    """Return the record in an RDF graph, and the nodes that it stands in.

    Args:
        graph: The RDF graph.
        where: The name in error messages.

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
    names = _Names(reader, where)
    statements = list(_statements(reader, owner, names))
    edits = {_edit(reader, node): node for node in reader.all(owner, vocabulary.HAS_EDIT)}
    try:
        record = PersonalRecord(
            reader.id_of(owner, vocabulary.OWNERS.id),
            tuple(statement for statement, _ in statements),
            tuple(sorted(edits, key=lambda edit: edit.number)),
        )
    except ValueError as error:
        raise DataError(f"{where}: {error}") from error
    described = frozenset(
        (edit.number, names.item(item))
        for edit, node in edits.items()
        for item in reader.all(node, vocabulary.DESCRIBED)
    )
    return record, Nodes(owner, names.items, names.documents, dict(statements), described)


class _Names:
    """The ids of items and documents; two nodes never share one."""

    def __init__(self, reader: NodeReader, where: str) -> None:
        self._reader = reader
        self._where = where
        self.items: dict[str, Node] = {}
        self.documents: dict[str, Node] = {}

    def item(self, node: Node) -> str:
        return self._keep(self.items, "item", self._item_id(node), node)

    def document(self, node: Node) -> str:
        name = self._reader.id_of(node, vocabulary.DOCUMENTS.id)
        return self._keep(self.documents, "document", name, node)

    def _item_id(self, node: Node) -> str:
        identifier = self._reader.text_or_none(node, vocabulary.IDENTIFIER)
        if str(node).startswith(vocabulary.ITEMS.prefix):
            tail = self._reader.id_of(node, vocabulary.ITEMS.id)
            if identifier not in (tail, None):
                must = f"be {tail!r}, as its IRI says"
                raise self._reader.error(node, vocabulary.IDENTIFIER, must, identifier)
            return tail
        if identifier is not None:
            return identifier
        if isinstance(node, BNode):
            raise DataError(
                f"{self._where}: an item needs an IRI or {vocabulary.IDENTIFIER}, got one with "
                "neither"
            )
        return self._reader.id_of(node, vocabulary.ITEMS.id)

    def _keep(self, held: dict[str, Node], what: str, name: str, node: Node) -> str:
        if held.setdefault(name, node) != node:
            raise DataError(
                f"{self._where}: each {what} must have an id of its own, got {name!r} for "
                f"{held[name]} and {node}"
            )
        return name


def _statements(reader: NodeReader, owner: Node, names: _Names) -> Iterator[tuple[Statement, Node]]:
    def statement(read: Callable[[NodeReader, Node, _Names], Fact | Rule], node: Node) -> Statement:
        return Statement(
            read(reader, node, names),
            _edit_number(reader, node, vocabulary.GENERATED_BY),
            _edit_number(reader, node, vocabulary.INVALIDATED_BY),
        )

    for node in reader.all(owner, vocabulary.HAS_FACT):
        yield replace(statement(_fact, node), ended_by=None), node
    for node in reader.all(owner, vocabulary.HAS_RULE):
        yield replace(statement(_rule, node), ended_by=None), node
    for node in reader.all(owner, vocabulary.HAS_PAST):
        reader.one(node, vocabulary.INVALIDATED_BY)
        past_rule = reader.is_a(node, vocabulary.PAST_RULE)
        yield statement(_rule if past_rule else _fact, node), node


def _edit_number(reader: NodeReader, node: Node, predicate: str) -> int | None:
    edit = reader.one_or_none(node, predicate)
    return None if edit is None else reader.count(edit, vocabulary.NUMBER)


def _fact(reader: NodeReader, node: Node, names: _Names) -> Fact:
    item = reader.one(node, vocabulary.ITEM)
    name = reader.text_or_none(item, vocabulary.NAME)
    if name is None:
        name = reader.text_or_none(node, vocabulary.ITEM_NAME)
    return Fact(
        relation=reader.choice(node, vocabulary.RELATION, vocabulary.RELATION_BY_IRI),
        tail=names.item(item),
        name=reader.text(item, vocabulary.NAME) if name is None else name,
        time=Moment(
            reader.count(node, vocabulary.SESSION), reader.count(node, vocabulary.POSITION)
        ),
        provenance=_provenance(reader, node, names),
        item_class=_item_class(reader, item),
    )


def _item_class(reader: NodeReader, item: Node) -> str:
    classes = sorted(filter(None, (vocabulary.item_class(iri) for iri in reader.types(item))))
    # Others may add classes to a film, and an item without a class is a film.
    return MOVIE if MOVIE in classes or not classes else classes[0]


def _rule(reader: NodeReader, node: Node, names: _Names) -> Rule:
    return Rule(
        id=reader.text(node, vocabulary.IDENTIFIER),
        scope=reader.text(node, vocabulary.SCOPE),
        value=reader.text(node, vocabulary.VALUE),
        direction=reader.choice(node, vocabulary.DIRECTION, vocabulary.DIRECTION_BY_IRI),
        strength=reader.number(node, vocabulary.STRENGTH),
        provenance=_provenance(reader, node, names),
    )


def _provenance(reader: NodeReader, node: Node, names: _Names) -> Provenance:
    return Provenance(
        reader.id_of(reader.one(node, vocabulary.ATTRIBUTED_TO), vocabulary.source_of),
        names.document(reader.one(node, vocabulary.DERIVED_FROM)),
    )


def _edit(reader: NodeReader, node: Node) -> Edit:
    return Edit(
        reader.count(node, vocabulary.NUMBER),
        reader.text(node, vocabulary.ACTION),
        reader.time(node, vocabulary.ENDED_AT),
    )
