"""A personal graph as one JSON-LD document that a person can read.

The owner contains facts in order of time, which contain their item; rdflib's own writer lists them
side by side. What others wrote about the same nodes stands with them, and their other nodes and
named graphs after the owner.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rdflib import namespace
from rdflib.namespace import RDF
from rdflib.term import BNode, Literal, Node, URIRef

from pkgllm.graph import vocabulary
from pkgllm.graph.personal_graph import MOVIE
from pkgllm.graph.rdf_text import relative
from pkgllm.graph.record_triples import Triple

_NESTED = {
    vocabulary.HAS_FACT: "facts",
    vocabulary.HAS_RULE: "rules",
    vocabulary.HAS_PAST: "past",
    vocabulary.HAS_EDIT: "edits",
}
_KEYS = {
    **_NESTED,
    vocabulary.RELATION: "relation",
    vocabulary.ITEM: "item",
    vocabulary.NAME: "name",
    vocabulary.IDENTIFIER: "identifier",
    vocabulary.DIRECTION: "direction",
    vocabulary.SCOPE: "scope",
    vocabulary.VALUE: "value",
    vocabulary.STRENGTH: "strength",
    vocabulary.SESSION: "session",
    vocabulary.POSITION: "position",
    vocabulary.ATTRIBUTED_TO: "source",
    vocabulary.DERIVED_FROM: "document",
    vocabulary.GENERATED_BY: "madeBy",
    vocabulary.INVALIDATED_BY: "endedBy",
    vocabulary.NUMBER: "number",
    vocabulary.ACTION: "action",
    vocabulary.ENDED_AT: "time",
}
"""Short keys in the order in which a node has them."""

_TYPE = str(RDF.type)
_DEEPEST = 8
"""How deep nodes contain each other; a long list of RDF goes on at the top."""
_PLACE = {iri: place for place, iri in enumerate(_KEYS)}
_WORDS = (vocabulary.RELATION, vocabulary.DIRECTION, vocabulary.ATTRIBUTED_TO)
_LINKS = (vocabulary.DERIVED_FROM, vocabulary.GENERATED_BY, vocabulary.INVALIDATED_BY)
_HISTORY = frozenset(_KEYS) - frozenset(
    (
        vocabulary.HAS_FACT,
        vocabulary.RELATION,
        vocabulary.ITEM,
        vocabulary.NAME,
        vocabulary.IDENTIFIER,
        vocabulary.SESSION,
        vocabulary.POSITION,
        vocabulary.ATTRIBUTED_TO,
        vocabulary.DERIVED_FROM,
    )
)
"""What only the context of a record defines."""


def document(
    triples: Iterable[Triple], owner: Node, order: Sequence[Node], named: Mapping[Node, set[Triple]]
) -> str:
    """Return a dataset as JSON-LD with its context inline.

    Args:
        triples: The default graph.
        owner: The node that contains the others.
        order: Its facts, rules and edits, in the order in which they are written.
        named: The triples of each named graph.
    """
    subjects = _by_subject(triples)
    history = any(str(t[1]) in _HISTORY for values in subjects.values() for t in values)
    context = vocabulary.RECORD_CONTEXT if history else vocabulary.CONTEXT
    place = {node: number for number, node in enumerate(order)}
    writer = _Writer(subjects, place, history=history)
    nodes = [writer.node(owner)]
    nodes += [writer.node(s) for s in sorted(subjects, key=_order) if s not in writer.written]
    for name in sorted(named, key=_order):
        inner = _Writer(_by_subject(named[name]), {}, history=history, labels=writer.labels)
        content = [
            inner.node(s) for s in sorted(inner.subjects, key=_order) if s not in inner.written
        ]
        nodes.append({"@id": writer.name(name), "@graph": content})
    first = {"@context": dict(context)}
    whole = first | nodes[0] if len(nodes) == 1 else first | {"@graph": nodes}
    return json.dumps(whole, ensure_ascii=False, indent=2) + "\n"


def _order(node: Node) -> tuple[bool, str]:
    return isinstance(node, BNode), str(node)


def _by_subject(triples: Iterable[Triple]) -> dict[Node, list[Triple]]:
    subjects: dict[Node, list[Triple]] = {}
    for triple in triples:
        subjects.setdefault(triple[0], []).append(triple)
    return subjects


class _Writer:
    """Writes the nodes of one graph, each in full where it is first met."""

    def __init__(
        self,
        subjects: dict[Node, list[Triple]],
        place: Mapping[Node, int],
        *,
        history: bool,
        labels: dict[Node, str] | None = None,
    ) -> None:
        self.subjects = subjects
        self.written: set[Node] = set()
        self.labels: dict[Node, str] = {} if labels is None else labels
        self._place = place
        self._history = history

    def name(self, node: Node) -> str:
        """Return what stands in ``@id``."""
        if isinstance(node, BNode):
            return self.labels.setdefault(node, f"_:b{len(self.labels)}")
        return relative(str(node))

    def node(self, node: Node, depth: int = 0) -> dict[str, Any]:
        """Return a node with all that is said of it."""
        written: dict[str, Any] = {"@id": self.name(node)}
        self.written.add(node)
        values: dict[str, list[Node]] = {}
        for _, predicate, value in self.subjects.get(node, ()):
            values.setdefault(str(predicate), []).append(value)
        kinds = values.get(_TYPE, [])
        if kinds and all(isinstance(kind, URIRef) for kind in kinds):
            words = [_class(str(kind)) for kind in sorted(values.pop(_TYPE), key=str)]
            written["@type"] = words[0] if len(words) == 1 else words
        if vocabulary.OWNER in map(str, kinds):
            lists = _NESTED if self._history else {vocabulary.HAS_FACT: "facts"}
            values |= {iri: values.get(iri, []) for iri in lists}
        for iri in sorted(values, key=lambda iri: (_PLACE.get(iri, len(_PLACE)), iri)):
            self._add(written, iri, values[iri], depth + 1)
        return written

    def _add(self, written: dict[str, Any], iri: str, values: list[Node], depth: int) -> None:
        ordered = sorted(values, key=lambda v: (self._place.get(v, len(self._place)), _order(v)))
        if iri in _NESTED:
            written[_NESTED[iri]] = [self._value(v, depth) for v in ordered]
            return
        key = _KEYS.get(iri)
        short = [s for v in ordered if key and (s := self._short(iri, v, depth)) is not None]
        if key and len(short) == len(ordered):
            written[key] = short[0] if len(short) == 1 else short
        else:
            written[iri] = [self._value(v, depth) for v in ordered]

    def _short(self, iri: str, value: Node, depth: int) -> Any:
        """Return a value as the context reads it back, or None where it would not."""
        if iri == vocabulary.ITEM and not isinstance(value, Literal) and depth < _DEEPEST:
            # In full in each fact, as readers of plain JSON expect.
            return self.node(value, depth)
        if iri in _WORDS:
            word = str(value).removeprefix(vocabulary.NAMESPACE)
            return word if isinstance(value, URIRef) and word.isidentifier() else None
        if iri in _LINKS:
            return self.name(value) if isinstance(value, URIRef) else None
        if not isinstance(value, Literal):
            return None
        if iri == vocabulary.STRENGTH:
            return str(value) if value.datatype == namespace.XSD.decimal else None
        if iri == vocabulary.ENDED_AT:
            return str(value) if value.datatype == namespace.XSD.dateTime else None
        if value.datatype == namespace.XSD.integer and str(value) == str(value.value):
            return int(value)
        return self._value(value, depth)

    def _value(self, value: Node, depth: int) -> Any:
        if isinstance(value, Literal):
            if value.language is not None:
                return {"@value": str(value), "@language": value.language}
            if value.datatype is not None:
                return {"@value": str(value), "@type": str(value.datatype)}
            return str(value)
        if value in self.subjects and value not in self.written and depth < _DEEPEST:
            return self.node(value, depth)
        return {"@id": self.name(value)}


def _class(iri: str) -> str:
    """Return a class in the shortest form that the context reads back."""
    word = iri.removeprefix(vocabulary.NAMESPACE)
    if word != iri and word.isidentifier():
        return word
    # The context has a short term for films alone.
    return MOVIE if iri == vocabulary.SCHEMA + MOVIE else iri
