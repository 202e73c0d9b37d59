"""A person's record: the graph and the rules as they stand, and all that was said and taken back.

The edits are kept in order. An edit makes statements and ends others; what it ended is history, and
taking the edit back is to drop what it made and to let hold again what it ended. The rules for
statements that contradict each other:

* the newest verdict wins: liked and disliked replace whatever was said of the item before;
* ``seen`` adds nothing to a verdict, which says it already, and replaces everything else;
* ``unseen`` and ``suggested`` replace everything else, and each other;
* a rule replaces an earlier one of the same scope and value;
* what holds already is not said again, and an edit that changes nothing is none.
"""

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import NamedTuple

from pkgllm.graph.personal_graph import (
    MOVIE,
    Fact,
    Moment,
    PersonalGraph,
    Provenance,
    Relation,
)
from pkgllm.graph.rules import Direction, Rule


@dataclass(frozen=True, slots=True)
class Edit:
    """One change of a record, which can be taken back as a whole."""

    number: int
    """From 1, in order."""
    action: str
    """What was done, for example ``like``."""
    time: datetime
    """With its time zone."""


@dataclass(frozen=True, slots=True)
class Statement:
    """A fact or a rule, and the edits between which it holds."""

    content: Fact | Rule
    made_by: int | None = None
    """Number of the edit that made it; None for what was there before all edits."""
    ended_by: int | None = None
    """Number of the edit that ended it; None while it holds."""


class Verdict(NamedTuple):
    """What a person says about an item, before it is a fact with a time."""

    relation: Relation
    tail: str
    name: str
    item_class: str = MOVIE


class Wish(NamedTuple):
    """What a person wants more or less of, before it is a rule with an id."""

    direction: Direction
    scope: str
    value: str
    strength: float = 1.0


@dataclass(frozen=True, slots=True)
class PersonalRecord:
    """Everything that one person's file holds.

    Args:
        owner: The person's id.
        statements: Those that hold and those that were ended, in any order; they are kept in the
            order in which they were made.
        edits: In order, numbered from 1.

    Raises:
        ValueError: If edits are not numbered in order or lack a time zone, a statement names an
            edit that is not there or ends before it is made, two facts about an item hold, an
            item has two names or classes, or a rule's id or wish stands twice.

    Example:
        >>> from datetime import UTC
        >>> noon = datetime(2026, 5, 1, 12, tzinfo=UTC)
        >>> said = Provenance("own_edit", "edit/1")
        >>> record = PersonalRecord("p1").edited(
        ...     "like", noon, said, verdicts=[Verdict("liked", "7", "Heat (1995)")]
        ... )
        >>> record = record.edited(
        ...     "dislike", noon, said, verdicts=[Verdict("disliked", "7", "Heat (1995)")]
        ... )
        >>> [fact.relation for fact in record.graph.facts], len(record.past)
        (['disliked'], 1)
        >>> [fact.relation for fact in record.undone().graph.facts]
        ['liked']
    """

    owner: str
    statements: tuple[Statement, ...] = ()
    edits: tuple[Edit, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "statements", tuple(sorted(self.statements, key=_order)))
        self._check_edits()
        rule_ids: set[str] = set()
        ends: set[tuple[str, int]] = set()
        for statement in self.statements:
            made, ended = statement.made_by, statement.ended_by
            for number in (made, ended):
                if number is not None and not 1 <= number <= len(self.edits):
                    raise self._off(f"a statement names edit {number}, which is not there")
            if ended is not None and made is not None and made >= ended:
                raise self._off(f"a statement is ended by edit {ended} and made by edit {made}")
            if isinstance(statement.content, Rule):
                if statement.content.id in rule_ids:
                    raise self._off(f"a rule's id stands once, got {statement.content.id!r} twice")
                rule_ids.add(statement.content.id)
            elif ended is not None:
                end = (statement.content.tail, ended)
                if end in ends:
                    raise self._off(f"edit {ended} ends two facts about {end[0]!r}")
                ends.add(end)
        items: dict[str, Fact] = {}
        for fact in _facts(self.statements):
            first = items.setdefault(fact.tail, fact)
            for what, one, other in (
                ("name", first.name, fact.name),
                ("class", first.item_class, fact.item_class),
            ):
                if one != other:
                    raise self._off(
                        f"an item has one {what}, got {one!r} and {other!r} for {fact.tail!r}"
                    )
        wishes = [(rule.scope, rule.value) for rule in self.rules]
        for scope, value in wishes:
            if wishes.count((scope, value)) > 1:
                raise self._off(f"one rule speaks of {scope} {value!r}, got two")
        # Refuses two facts about one item.
        _ = self.graph

    def _check_edits(self) -> None:
        for number, edit in enumerate(self.edits, start=1):
            if edit.number != number:
                raise self._off(f"edits are numbered 1, 2, ... in order, got {edit.number}")
            if edit.time.tzinfo is None:
                raise self._off(f"the time of edit {number} must have a time zone")

    def _off(self, what: str) -> ValueError:
        return ValueError(f"record of {self.owner!r}: {what}")

    @classmethod
    def of(cls, graph: PersonalGraph) -> "PersonalRecord":
        """Return the record of a graph that nobody has edited."""
        return cls(graph.owner, tuple(Statement(fact) for fact in graph.facts))

    @property
    def graph(self) -> PersonalGraph:
        """The facts that hold."""
        return PersonalGraph(self.owner, tuple(_facts(self._holding())))

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules that hold, in the order in which they were made."""
        return tuple(s.content for s in self._holding() if isinstance(s.content, Rule))

    @property
    def past(self) -> tuple[Statement, ...]:
        """The statements that were ended."""
        return tuple(s for s in self.statements if s.ended_by is not None)

    @property
    def next_number(self) -> int:
        """The number of the next edit."""
        return len(self.edits) + 1

    def made_by(self, edit: Edit) -> tuple[Statement, ...]:
        """Return the statements that an edit made."""
        return tuple(s for s in self.statements if s.made_by == edit.number)

    def ended_by(self, edit: Edit) -> tuple[Statement, ...]:
        """Return the statements that an edit ended."""
        return tuple(s for s in self.statements if s.ended_by == edit.number)

    def edited(
        self,
        action: str,
        time: datetime,
        provenance: Provenance,
        *,
        verdicts: Sequence[Verdict] = (),
        wishes: Sequence[Wish] = (),
        forget: Collection[str] = (),
        drop: Collection[str] = (),
    ) -> "PersonalRecord":
        """Return the record after one more edit, or this one where nothing changes.

        Args:
            action: What the person did.
            time: When, with its time zone.
            provenance: Of the new statements.
            verdicts: New facts; of several about one item the last one counts.
            wishes: New rules; of several about one scope and value the last one counts.
            forget: Items about which nothing is to hold any more.
            drop: Ids of rules that are to hold no more.

        Raises:
            ValueError: If an item or a rule to forget is not there, or a wish is no rule.
        """
        graph, rules = self.graph, self.rules
        for what, wanted, there in (
            ("fact about the item", forget, graph.tails),
            ("rule", drop, {rule.id for rule in rules}),
        ):
            for unknown in sorted(set(wanted) - there):
                raise self._off(f"no {what} {unknown!r} holds")
        held = {fact.tail: fact.relation for fact in graph.facts}
        new = {v.tail: v for v in verdicts if not _adds_nothing(v.relation, held.get(v.tail))}
        strengths = {(r.direction, r.scope, r.value): r.strength for r in rules}
        wanted_rules = {(w.scope, w.value): w for w in wishes if strengths.get(w[:3]) != w.strength}
        if not (new or wanted_rules or forget or drop):
            return self
        number = self.next_number
        ended_items = set(forget) | set(new)
        kept = [
            replace(s, ended_by=number)
            if s.ended_by is None
            and (
                s.content.tail in ended_items
                if isinstance(s.content, Fact)
                else s.content.id in drop or (s.content.scope, s.content.value) in wanted_rules
            )
            else s
            for s in self.statements
        ]
        items = {fact.tail: (fact.name, fact.item_class) for fact in _facts(self.statements)}
        session = 1 + max((fact.time.session for fact in _facts(self.statements)), default=-1)
        facts = []
        for position, v in enumerate(new.values()):
            # What the record calls an item already stays.
            name, item_class = items.get(v.tail, (v.name, v.item_class))
            time_said = Moment(session, position)
            facts.append(Fact(v.relation, v.tail, name, time_said, provenance, item_class))
        first = self._next_rule()
        made = [
            Rule(f"r{first + place}", w.scope, w.value, w.direction, w.strength, provenance)
            for place, w in enumerate(wanted_rules.values())
        ]
        contents: tuple[Fact | Rule, ...] = (*facts, *made)
        return PersonalRecord(
            self.owner,
            (*kept, *(Statement(content, made_by=number) for content in contents)),
            (*self.edits, Edit(number, action, time)),
        )

    def undone(self) -> "PersonalRecord":
        """Return the record as it was before its last edit, of which nothing stays.

        Raises:
            ValueError: If there is no edit.
        """
        if not self.edits:
            raise self._off("there is no edit to take back")
        last = self.edits[-1].number
        return PersonalRecord(
            self.owner,
            tuple(
                replace(s, ended_by=None) if s.ended_by == last else s
                for s in self.statements
                if s.made_by != last
            ),
            self.edits[:-1],
        )

    def without_history(self) -> "PersonalRecord":
        """Return what holds, as if it had never been edited."""
        return PersonalRecord(
            self.owner, tuple(Statement(statement.content) for statement in self._holding())
        )

    def _holding(self) -> Iterable[Statement]:
        return (s for s in self.statements if s.ended_by is None)

    def _next_rule(self) -> int:
        ids = [s.content.id for s in self.statements if isinstance(s.content, Rule)]
        return 1 + max((int(i[1:]) for i in ids if re.fullmatch(r"r[0-9]+", i)), default=0)


def _order(statement: Statement) -> tuple[object, ...]:
    made, content = statement.made_by or 0, statement.content
    if isinstance(content, Rule):
        # r10 after r9
        return made, 1, len(content.id), content.id
    return made, 0, content.time, content.tail, statement.ended_by or 0


def _facts(statements: Iterable[Statement]) -> Iterable[Fact]:
    return (s.content for s in statements if isinstance(s.content, Fact))


def _adds_nothing(new: Relation, held: Relation | None) -> bool:
    return new == held or (new == "seen" and held in ("liked", "disliked"))
