"""A personal knowledge graph (PKG): a person's opinions of items, with time and provenance.

Every fact has the owner as its head, so a fact stores relation and tail only. The values here are
immutable; an edit makes a new graph.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

Relation = Literal["liked", "disliked", "seen", "unseen", "suggested"]
RELATIONS: tuple[Relation, ...] = get_args(Relation)

Source = str
"""A kind of origin: a word of small letters, digits and ``_``. A corpus may add its own."""
SOURCES: tuple[Source, ...] = ("own_answer", "partner_answer", "own_edit", "own_statement")

MOVIE = "Movie"
"""The class of items for which no other is given."""


class Triple(NamedTuple):
    """(head, relation, tail): the owner, their opinion, and the item's id."""

    head: str
    relation: str
    tail: str


class Moment(NamedTuple):
    """A point in one person's history; ordered. No date, because not every corpus has dates."""

    session: int
    """Index of the conversation, from 0 within the person's history."""
    position: int
    """Index of the item's first mention within that conversation, from 0."""


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a fact comes from."""

    source: Source
    """``own_answer`` if the person gave it, ``partner_answer`` if only the other side did,
    ``own_edit`` if the person edited the graph, ``own_statement`` if the person confirmed that a
    statement of theirs is added."""
    document: str
    """The document that contains the statement, for example ``conversation/391``."""


@dataclass(frozen=True, slots=True)
class Fact:
    """One statement of a person about one item."""

    relation: Relation
    tail: str
    """The item's id in its catalogue."""
    name: str
    """The item's surface form, for example ``Heat (1995)``."""
    time: Moment
    provenance: Provenance
    item_class: str = MOVIE
    """What the item is, a class of schema.org."""


@dataclass(frozen=True, slots=True)
class PersonalGraph:
    """The facts of one person, in order of time, at most one for each item.

    Args:
        owner: The person's id; the head of every triple.
        facts: In any order; they are kept sorted by time, then tail.

    Raises:
        ValueError: If two facts speak of the same item.

    Example:
        >>> said = Provenance("own_answer", "conversation/1")
        >>> graph = PersonalGraph("p1", (
        ...     Fact("liked", "7", "Heat (1995)", Moment(0, 0), said),
        ...     Fact("seen", "9", "Ran (1985)", Moment(0, 1), said),
        ... ))
        >>> [fact.tail for fact in graph.with_relation("liked")]
        ['7']
        >>> graph.before(Moment(0, 1)).tails
        frozenset({'7'})
    """

    owner: str
    facts: tuple[Fact, ...]

    def __post_init__(self) -> None:
        ordered = tuple(sorted(self.facts, key=lambda fact: (fact.time, fact.tail)))
        object.__setattr__(self, "facts", ordered)
        tails: set[str] = set()
        for fact in ordered:
            if fact.tail in tails:
                raise ValueError(
                    f"graph of {self.owner!r}: an item has at most one fact, got two about "
                    f"{fact.tail!r}"
                )
            tails.add(fact.tail)

    @property
    def tails(self) -> frozenset[str]:
        """The ids of all items with a fact."""
        return frozenset(fact.tail for fact in self.facts)

    def triples(self) -> tuple[Triple, ...]:
        """Return the facts as (head, relation, tail)."""
        return tuple(Triple(self.owner, fact.relation, fact.tail) for fact in self.facts)

    def with_relation(self, *relations: Relation) -> tuple[Fact, ...]:
        """Return the facts that carry one of the relations, in order of time."""
        return tuple(fact for fact in self.facts if fact.relation in relations)

    def before(self, moment: Moment) -> "PersonalGraph":
        """Return the graph of all facts strictly before a moment."""
        return PersonalGraph(self.owner, tuple(f for f in self.facts if f.time < moment))

    def only(self, facts: Iterable[Fact]) -> "PersonalGraph":
        """Return a graph of the same owner with other facts."""
        return PersonalGraph(self.owner, tuple(facts))

    def without(self, tails: Collection[str]) -> "PersonalGraph":
        """Return the graph without the facts about some items."""
        return PersonalGraph(self.owner, tuple(f for f in self.facts if f.tail not in tails))
