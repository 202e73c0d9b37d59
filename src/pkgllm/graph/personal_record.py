"""A person's record: the current graph and rules, with the history of all edits.

An edit makes statements and ends others; undoing it removes the statements that it made and makes
those that it ended current again. Contradictions are resolved so:

* the newest verdict wins: liked and disliked replace any fact about the item;
* ``seen`` is ignored after liked or disliked, which imply it, and replaces any other fact;
* ``unseen`` and ``suggested`` replace any fact;
* a rule replaces an earlier one of the same scope and value;
* a current statement is not repeated, and an edit without effect is not recorded.
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
    """One change of a record, which can be undone as a whole."""

    number: int
    """From 1, in order."""
    action: str
    """For example ``like``."""
    time: datetime
    """With its time zone."""


@dataclass(frozen=True, slots=True)
class Statement:
    """A fact or a rule, and the edits between which it is current."""

    content: Fact | Rule
    made_by: int | None = None
    """Number of the edit that made it; None if it is older than all edits."""
    ended_by: int | None = None
    """Number of the edit that ended it; None while it is current."""


class Verdict(NamedTuple):
    """A person's opinion of an item, before it is a fact with a time."""

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
    """The content of one person's file.

    Args:
        owner: The person's id.
        statements: Current and ended ones, in any order; they are kept in the order in which they
            were made.
        edits: In order, numbered from 1.

    Raises:
        ValueError: If edits are not numbered in order or lack a time zone, a statement names a
            missing edit or ends before it is made, an item has two current facts, two names or
            two classes, or a rule's id or wish occurs twice.

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
                    raise self._error(f"a statement names edit {number}, which is missing")
            if ended is not None and made is not None and made >= ended:
                raise self._error(f"a statement is ended by edit {ended} and made by edit {made}")
            if isinstance(statement.content, Rule):
                if statement.content.id in rule_ids:
                    raise self._error(
                        f"a rule's id must be unique, got {statement.content.id!r} twice"
                    )
                rule_ids.add(statement.content.id)
            elif ended is not None:
                end = (statement.content.tail, ended)
                if end in ends:
                    raise self._error(f"edit {ended} ends two facts about {end[0]!r}")
                ends.add(end)
        items: dict[str, Fact] = {}
        for fact in _facts(self.statements):
            first = items.setdefault(fact.tail, fact)
            for what, one, other in (
                ("name", first.name, fact.name),
                ("class", first.item_class, fact.item_class),
            ):
                if one != other:
                    raise self._error(
                        f"an item has one {what}, got {one!r} and {other!r} for {fact.tail!r}"
                    )
        wishes = [(rule.scope, rule.value) for rule in self.rules]
        for scope, value in wishes:
            if wishes.count((scope, value)) > 1:
                raise self._error(f"at most one rule is about {scope} {value!r}, got two")
        _ = self.graph  # refuses two facts about one item

    def _check_edits(self) -> None:
        for number, edit in enumerate(self.edits, start=1):
            if edit.number != number:
                raise self._error(f"edits are numbered 1, 2, ... in order, got {edit.number}")
            if edit.time.tzinfo is None:
                raise self._error(f"the time of edit {number} must have a time zone")

    def _error(self, what: str) -> ValueError:
        return ValueError(f"record of {self.owner!r}: {what}")

    @classmethod
    def of(cls, graph: PersonalGraph) -> "PersonalRecord":
        """Return the record of a graph without edits."""
        return cls(graph.owner, tuple(Statement(fact) for fact in graph.facts))

    @property
    def graph(self) -> PersonalGraph:
        """The current facts."""
        return PersonalGraph(self.owner, tuple(_facts(self._current())))

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The current rules, in the order in which they were made."""
        return tuple(s.content for s in self._current() if isinstance(s.content, Rule))

    @property
    def past(self) -> tuple[Statement, ...]:
        """The ended statements."""
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
        """Return the record after one more edit, or this one if nothing changes.

        Args:
            action: For example ``like``.
            time: Of the edit, with its time zone.
            provenance: Of the new statements.
            verdicts: New facts; of several about one item the last one counts.
            wishes: New rules; of several about one scope and value the last one counts.
            forget: Items whose facts end.
            drop: Ids of rules that end.

        Raises:
            ValueError: If an item has no current fact, a rule is not current, or a wish is invalid.
        """
        graph, rules = self.graph, self.rules
        for what, wanted, current in (
            ("fact about the item", forget, graph.tails),
            ("rule", drop, {rule.id for rule in rules}),
        ):
            for unknown in sorted(set(wanted) - current):
                raise self._error(f"there is no current {what} {unknown!r}")
        relations = {fact.tail: fact.relation for fact in graph.facts}
        new = {v.tail: v for v in verdicts if not _adds_nothing(v.relation, relations.get(v.tail))}
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
            # An item keeps the name and class that it has in the record.
            name, item_class = items.get(v.tail, (v.name, v.item_class))
            moment = Moment(session, position)
            facts.append(Fact(v.relation, v.tail, name, moment, provenance, item_class))
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
        """Return the record without its last edit.

        Raises:
            ValueError: If there is no edit.
        """
        if not self.edits:
            raise self._error("there is no edit to undo")
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
        """Return the current statements, as if there had been no edits."""
        return PersonalRecord(
            self.owner, tuple(Statement(statement.content) for statement in self._current())
        )

    def _current(self) -> Iterable[Statement]:
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


def _adds_nothing(new: Relation, old: Relation | None) -> bool:
    return new == old or (new == "seen" and old in ("liked", "disliked"))
