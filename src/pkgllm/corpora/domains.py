"""A tiny domain: items, public facts in relations of its own, and a few people in one bubble.

Two are shipped, videos and recipes. They show that nothing here is about films.
"""

from dataclasses import dataclass
from pathlib import Path

from pkgllm.corpora.catalogue import Catalogue
from pkgllm.corpora.catalogue_file import read_catalogue_file, read_json_object
from pkgllm.errors import DataError
from pkgllm.graph.personal_graph import RELATIONS, Fact, Moment, PersonalGraph, Provenance
from pkgllm.shipped import domains_folder

SHIPPED = ("cat_videos", "tomato_recipes")


@dataclass(frozen=True, slots=True)
class DomainPerson:
    """One person of a domain."""

    graph: PersonalGraph
    held_out: tuple[str, ...]
    """Ids of what the person likes later."""


@dataclass(frozen=True, slots=True)
class Domain:
    """What one file holds."""

    name: str
    catalogue: Catalogue
    request: str
    """What its people ask, in general."""
    constraint: tuple[str, str]
    """Scope and value of what they ask for in particular."""
    avoid: str
    """The bubble, in a person's words."""
    alike: str
    """The relation whose values make items alike, as genres do for films."""
    people: tuple[DomainPerson, ...]


def read_domain(name: str) -> Domain:
    """Read a shipped domain, or a file of the same form.

    Args:
        name: One of :data:`SHIPPED`, or a path.

    Raises:
        DataError: If it cannot be read or holds something else.
    """
    path = domains_folder() / f"{name}.json" if name in SHIPPED else Path(name)
    record = read_json_object(path, what="a domain")
    catalogue = read_catalogue_file(path)
    try:
        constraint, people = record["constraint"], record["people"]
        assert isinstance(constraint, dict)
        assert isinstance(people, list)
        texts = [record[key] for key in ("name", "request", "avoid", "alike")]
        title, request, avoid, alike = map(str, texts)
        return Domain(
            name=title,
            catalogue=catalogue,
            request=request,
            constraint=(str(constraint["scope"]), str(constraint["value"])),
            avoid=avoid,
            alike=alike,
            people=tuple(_person(person, catalogue) for person in people),
        )
    except (KeyError, TypeError, ValueError, AssertionError) as error:
        raise DataError(
            f"{path}: must hold a domain as data/domains has them: {error!r}"
        ) from error


def _person(record: dict[str, list[list[str]]], catalogue: Catalogue) -> DomainPerson:
    said = Provenance("own_answer", "domain")
    facts = tuple(
        Fact(
            RELATIONS[[str(r) for r in RELATIONS].index(relation)],
            item,
            catalogue[item].name,
            Moment(0, place),
            said,
            catalogue[item].item_class,
        )
        for place, (relation, item) in enumerate(record["facts"])
    )
    return DomainPerson(
        PersonalGraph(str(record["id"]), facts), tuple(map(str, record["held_out"]))
    )
