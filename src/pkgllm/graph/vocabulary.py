"""The terms of a personal graph in RDF: IRIs, the JSON-LD context, and ids as IRIs and back.

Items use terms of schema.org, provenance those of PROV; all others are in a small namespace of our
own, which is a name only: nothing is served there. ``docs/vocabulary.md`` explains every term.
This module imports no RDF library.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any
from urllib.parse import quote, unquote

from pkgllm.graph.personal_graph import RELATIONS, Relation, Source
from pkgllm.graph.rules import DIRECTIONS, Direction

NAMESPACE = "https://w3id.org/pkgllm/"
SCHEMA = "https://schema.org/"
SCHEMA_HTTP = "http://schema.org/"
"""The older form of the same names, which schema.org treats as equal."""
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
ALTERNATE_OF = PROV + "alternateOf"
"""From an ended fact to the node that it had before, where that is not named as we name facts."""
ITEM_NAME = NAMESPACE + "itemName"
"""From a fact to its item's name, where the item itself is described without one."""
DESCRIBED = NAMESPACE + "describedBefore"
"""From an edit to an item of its facts that the file had described for another reason."""

IRI_BY_RELATION: Mapping[Relation, str] = MappingProxyType({r: NAMESPACE + r for r in RELATIONS})
RELATION_BY_IRI: Mapping[str, Relation] = MappingProxyType({NAMESPACE + r: r for r in RELATIONS})
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


@dataclass(frozen=True, slots=True)
class Iri:
    """IRIs of one kind: a prefix, then one or more percent-encoded ids with colons between them.

    Example:
        >>> OWNERS.iri("Zoë/7"), OWNERS.id("urn:pkgllm:owner:Zo%C3%AB%2F7")
        ('urn:pkgllm:owner:Zo%C3%AB%2F7', 'Zoë/7')
        >>> PAST_FACTS.iri("p1", "7", 3)
        'urn:pkgllm:past:p1:7:3'
    """

    prefix: str

    def iri(self, *ids: str | int) -> str:
        """Return the IRI of some ids."""
        return self.prefix + ":".join(quote(str(part), safe="") for part in ids)

    def id(self, iri: str) -> str:
        """Return the single id of an IRI: of one that others have made, the IRI itself.

        Raises:
            ValueError: If the IRI is one of ours, of another kind.

        Example:
            >>> OWNERS.id("https://zoe.example/card#me")
            'https://zoe.example/card#me'
        """
        if iri.startswith(self.prefix):
            return unquote(iri.removeprefix(self.prefix), errors="strict")
        if iri.startswith("urn:pkgllm:"):
            raise ValueError(f"an IRI that starts with {self.prefix} is needed, got {iri}")
        return iri


OWNERS = Iri("urn:pkgllm:owner:")
ITEMS = Iri("urn:pkgllm:item:")
DOCUMENTS = Iri("urn:pkgllm:document:")
FACTS = Iri("urn:pkgllm:fact:")
"""Of an owner and an item: at most one current fact."""
PAST_FACTS = Iri("urn:pkgllm:past:")
"""Of an owner, an item and the number of the edit that ended the fact."""
RULES = Iri("urn:pkgllm:rule:")
"""Of an owner and a rule's id; the same before and after the rule has ended."""
EDITS = Iri("urn:pkgllm:edit:")
"""Of an owner and an edit's number."""
PUBLIC_RELATIONS = Iri(NAMESPACE + "public/")
"""Of a relation between an item and a public value, such as ``director``."""

_SOURCE = re.compile(re.escape(NAMESPACE) + r"([a-z][a-z0-9_]*)")


def source_of(iri: str) -> Source:
    """Return the source that an IRI stands for.

    Raises:
        ValueError: If it is not a word of our namespace.

    Example:
        >>> source_of("https://w3id.org/pkgllm/own_answer")
        'own_answer'
    """
    match = _SOURCE.fullmatch(iri)
    if match is None:
        raise ValueError(
            f"a source must be {NAMESPACE} and a word of small letters, digits and _, got {iri}"
        )
    return match[1]


_CLASS = re.compile(r"[0-9]*[A-Z][A-Za-z0-9]*")


def item_class_iri(item_class: str) -> str:
    """Return the IRI of a class of items.

    Raises:
        ValueError: If it is not the name of a class of schema.org.

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
    name = https(iri).removeprefix(SCHEMA)
    return name if name != https(iri) and _CLASS.fullmatch(name) else None


def https(iri: str) -> str:
    """Return the newer form of a name of schema.org, and any other IRI as it is.

    Example:
        >>> https("http://schema.org/name"), https("urn:x")
        ('https://schema.org/name', 'urn:x')
    """
    return SCHEMA + iri.removeprefix(SCHEMA_HTTP) if iri.startswith(SCHEMA_HTTP) else iri


def spellings(iri: str) -> tuple[str, ...]:
    """Return the forms in which files have an IRI: schema.org's names have two."""
    if iri.startswith(SCHEMA):
        return iri, SCHEMA_HTTP + iri.removeprefix(SCHEMA)
    return (iri,)
