"""The words of a personal graph in RDF: IRIs, the JSON-LD context, and ids as IRIs and back.

Items are schema.org's, provenance is PROV's, and what neither has is in a small namespace of our
own, which is a name and not an address: nothing is served there. ``docs/vocabulary.md`` explains
every term. Nothing here imports an RDF library.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any
from urllib.parse import quote, unquote

from pkgllm.graph.personal_graph import RELATIONS, SOURCES, Relation, Source
from pkgllm.graph.rules import DIRECTIONS, Direction

NAMESPACE = "https://w3id.org/pkgllm/"
SCHEMA = "https://schema.org/"
PROV = "http://www.w3.org/ns/prov#"

OWNER = NAMESPACE + "Owner"
FACT = NAMESPACE + "Fact"
HAS_FACT = NAMESPACE + "fact"
RELATION = NAMESPACE + "relation"
ITEM = NAMESPACE + "item"
SESSION = NAMESPACE + "session"
POSITION = NAMESPACE + "position"
NAME = SCHEMA + "name"
IDENTIFIER = SCHEMA + "identifier"
DERIVED_FROM = PROV + "wasDerivedFrom"
ATTRIBUTED_TO = PROV + "wasAttributedTo"

RULE = NAMESPACE + "Rule"
HAS_RULE = NAMESPACE + "rule"
SCOPE = NAMESPACE + "scope"
VALUE = NAMESPACE + "value"
DIRECTION = NAMESPACE + "direction"
STRENGTH = NAMESPACE + "strength"

EDIT = NAMESPACE + "Edit"
HAS_EDIT = NAMESPACE + "edit"
NUMBER = NAMESPACE + "number"
ACTION = NAMESPACE + "action"
ENDED_AT = PROV + "endedAtTime"
PAST_FACT = NAMESPACE + "PastFact"
PAST_RULE = NAMESPACE + "PastRule"
HAS_PAST = NAMESPACE + "past"
GENERATED_BY = PROV + "wasGeneratedBy"
INVALIDATED_BY = PROV + "wasInvalidatedBy"

IRI_BY_RELATION: Mapping[Relation, str] = MappingProxyType({r: NAMESPACE + r for r in RELATIONS})
RELATION_BY_IRI: Mapping[str, Relation] = MappingProxyType({NAMESPACE + r: r for r in RELATIONS})
IRI_BY_SOURCE: Mapping[Source, str] = MappingProxyType({s: NAMESPACE + s for s in SOURCES})
SOURCE_BY_IRI: Mapping[str, Source] = MappingProxyType({NAMESPACE + s: s for s in SOURCES})
DIRECTION_BY_IRI: Mapping[str, Direction] = MappingProxyType(
    {NAMESPACE + direction: direction for direction in DIRECTIONS}
)

CONTEXT: Mapping[str, Any] = MappingProxyType(
    {
        "@vocab": NAMESPACE,
        "pkg": NAMESPACE,
        "schema": SCHEMA,
        "prov": PROV,
        "Movie": "schema:Movie",
        "name": "schema:name",
        "identifier": "schema:identifier",
        "facts": "pkg:fact",
        "relation": {"@type": "@vocab"},
        "source": {"@id": "prov:wasAttributedTo", "@type": "@vocab"},
        "document": {"@id": "prov:wasDerivedFrom", "@type": "@id"},
    }
)
"""The inline context of a JSON-LD document that holds a graph alone."""

RECORD_CONTEXT: Mapping[str, Any] = MappingProxyType(
    {
        **CONTEXT,
        "xsd": "http://www.w3.org/2001/XMLSchema#",
        "rules": "pkg:rule",
        "direction": {"@type": "@vocab"},
        "strength": {"@type": "xsd:decimal"},
        "edits": "pkg:edit",
        "time": {"@id": "prov:endedAtTime", "@type": "xsd:dateTime"},
        "madeBy": {"@id": "prov:wasGeneratedBy", "@type": "@id"},
        "endedBy": {"@id": "prov:wasInvalidatedBy", "@type": "@id"},
    }
)
"""The inline context of a JSON-LD document that holds edits or rules as well."""

_CLASS = re.compile(r"[0-9]*[A-Z][A-Za-z0-9]*")
_PUBLIC_PREFIX = NAMESPACE + "public/"
_OWNER_PREFIX = "urn:pkgllm:owner:"
_ITEM_PREFIX = "urn:pkgllm:item:"
_FACT_PREFIX = "urn:pkgllm:fact:"
_DOCUMENT_PREFIX = "urn:pkgllm:document:"
_PAST_PREFIX = "urn:pkgllm:past:"
_RULE_PREFIX = "urn:pkgllm:rule:"
_EDIT_PREFIX = "urn:pkgllm:edit:"


def public_relation_iri(relation: str) -> str:
    """Return the IRI of a relation between an item and a public value, such as ``director``.

    Example:
        >>> public_relation_iri("director")
        'https://w3id.org/pkgllm/public/director'
    """
    return _PUBLIC_PREFIX + quote(relation, safe="")


def public_relation(iri: str) -> str:
    """Return the relation that an IRI names; the inverse of :func:`public_relation_iri`.

    Raises:
        ValueError: If the IRI is not such a relation's.
    """
    return _id(iri, _PUBLIC_PREFIX)


def owner_iri(owner: str) -> str:
    """Return the IRI of the owner of a graph.

    Example:
        >>> owner_iri("Zoë/7")
        'urn:pkgllm:owner:Zo%C3%AB%2F7'
    """
    return _OWNER_PREFIX + quote(owner, safe="")


def owner_id(iri: str) -> str:
    """Return the owner whom an IRI names; the inverse of :func:`owner_iri`.

    Raises:
        ValueError: If the IRI is not an owner's.
    """
    return _id(iri, _OWNER_PREFIX)


def item_iri(item: str) -> str:
    """Return the IRI of an item.

    Example:
        >>> item_iri("196336")
        'urn:pkgllm:item:196336'
    """
    return _ITEM_PREFIX + quote(item, safe="")


def item_id(iri: str) -> str:
    """Return the item that an IRI names; the inverse of :func:`item_iri`.

    Raises:
        ValueError: If the IRI is not an item's.
    """
    return _id(iri, _ITEM_PREFIX)


def item_class_iri(item_class: str) -> str:
    """Return the IRI of a class of items.

    Raises:
        ValueError: If it is no name of a class of schema.org.

    Example:
        >>> item_class_iri("Recipe")
        'https://schema.org/Recipe'
    """
    if not _CLASS.fullmatch(item_class):
        raise ValueError(
            "a class of schema.org, such as Recipe, is needed: letters and digits, the first "
            f"letter a capital; got {item_class!r}"
        )
    return SCHEMA + item_class


def item_class(iri: str) -> str | None:
    """Return the class of items that an IRI names, or None where it names none.

    Example:
        >>> item_class("https://schema.org/Recipe"), item_class("https://w3id.org/pkgllm/Fact")
        ('Recipe', None)
    """
    name = iri.removeprefix(SCHEMA)
    return name if name != iri and _CLASS.fullmatch(name) else None


def document_iri(document: str) -> str:
    """Return the IRI of the document that holds a statement.

    Example:
        >>> document_iri("conversation/391")
        'urn:pkgllm:document:conversation%2F391'
    """
    return _DOCUMENT_PREFIX + quote(document, safe="")


def document_id(iri: str) -> str:
    """Return the document that an IRI names; the inverse of :func:`document_iri`.

    Raises:
        ValueError: If the IRI is not a document's.
    """
    return _id(iri, _DOCUMENT_PREFIX)


def fact_iri(owner: str, item: str) -> str:
    """Return the IRI of what an owner says about an item; there is at most one such fact.

    Example:
        >>> fact_iri("p1", "7")
        'urn:pkgllm:fact:p1:7'
    """
    return _FACT_PREFIX + quote(owner, safe="") + ":" + quote(item, safe="")


def past_fact_iri(owner: str, item: str, ended_by: int) -> str:
    """Return the IRI of what an owner said about an item until an edit ended it.

    Example:
        >>> past_fact_iri("p1", "7", 3)
        'urn:pkgllm:past:p1:7:3'
    """
    return f"{_PAST_PREFIX}{quote(owner, safe='')}:{quote(item, safe='')}:{ended_by}"


def rule_iri(owner: str, rule: str) -> str:
    """Return the IRI of an owner's rule; it stays the same when the rule is ended.

    Example:
        >>> rule_iri("p1", "r2")
        'urn:pkgllm:rule:p1:r2'
    """
    return f"{_RULE_PREFIX}{quote(owner, safe='')}:{quote(rule, safe='')}"


def edit_iri(owner: str, number: int) -> str:
    """Return the IRI of an owner's edit.

    Example:
        >>> edit_iri("p1", 3)
        'urn:pkgllm:edit:p1:3'
    """
    return f"{_EDIT_PREFIX}{quote(owner, safe='')}:{number}"


def _id(iri: str, prefix: str) -> str:
    if not iri.startswith(prefix):
        raise ValueError(f"an IRI that starts with {prefix} is needed, got {iri}")
    return unquote(iri.removeprefix(prefix), errors="strict")
