from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.rdf_texts import record_from_jsonld, record_from_turtle
from pkgllm.graph.personal_graph import (
    RELATIONS,
    Fact,
    Moment,
    PersonalGraph,
    Provenance,
    Relation,
)
from pkgllm.graph.personal_record import Edit, PersonalRecord, Statement, Verdict, Wish
from pkgllm.graph.rdf import to_jsonld, to_turtle
from pkgllm.graph.rules import DIRECTIONS, Rule

NOON = datetime(2026, 5, 1, 12, 0, 0, tzinfo=UTC)
SAID = Provenance("own_answer", "conversation/1")
OWN = Provenance("own_edit", "edit/1")

START = PersonalRecord.of(
    PersonalGraph("p1", (Fact("liked", "a", "Film a", Moment(0, 0), SAID),)),
)

Step = tuple[str, Any, Any]
items = st.sampled_from("abcd")
verdicts = st.builds(
    lambda relation, tail: Verdict(relation, tail, f"Film {tail}"),
    st.sampled_from(RELATIONS),
    items,
)
wishes = st.builds(
    Wish,
    st.sampled_from(DIRECTIONS),
    st.sampled_from(("genre", "person")),
    st.sampled_from(("x", "y")),
    st.sampled_from((1e-9, 0.1, 1 / 3, 1.0)),
)
steps = st.one_of(
    st.tuples(st.just("say"), st.lists(verdicts, max_size=3), st.lists(wishes, max_size=2)),
    st.tuples(st.just("forget"), items, st.none()),
    st.tuples(st.just("drop"), st.integers(0, 3), st.none()),
    st.tuples(st.just("undo"), st.none(), st.none()),
)


def say(record: PersonalRecord, relation: Relation, tail: str) -> PersonalRecord:
    return record.edited(relation, NOON, OWN, verdicts=[Verdict(relation, tail, f"Film {tail}")])


def run(record: PersonalRecord, given_steps: Sequence[Step]) -> list[PersonalRecord]:
    """Every state, the first included."""
    states = [record]
    for count, (kind, first, second) in enumerate(given_steps):
        now = states[-1]
        time = NOON + timedelta(seconds=count, microseconds=count)
        if kind == "say":
            after = now.edited("say", time, OWN, verdicts=first, wishes=second)
        elif kind == "forget" and first in now.graph.tails:
            after = now.edited("forget", time, OWN, forget={first})
        elif kind == "drop" and now.rules:
            after = now.edited("drop", time, OWN, drop={now.rules[first % len(now.rules)].id})
        elif kind == "undo" and now.edits:
            after = now.undone()
        else:
            continue
        states.append(after)
    return states


@given(st.lists(steps, max_size=8))
def test_an_edit_taken_back_leaves_the_record_as_it_was(
    given_steps: list[Step],
) -> None:
    states = run(START, given_steps)
    for before, after in pairwise(states):
        if len(after.edits) > len(before.edits):
            assert after.undone() == before


@given(st.lists(steps, max_size=8))
def test_nothing_that_was_said_is_lost(given_steps: list[Step]) -> None:
    states = run(START, given_steps)
    for before, after in pairwise(states):
        if len(after.edits) > len(before.edits):
            said_before = [(s.content, s.made_by) for s in before.statements]
            said_after = [(s.content, s.made_by) for s in after.statements]
            assert all(said in said_after for said in said_before)


@settings(max_examples=25)
@given(st.lists(steps, max_size=6))
def test_a_record_is_read_back_equal_in_both_formats(
    given_steps: list[Step],
) -> None:
    record = run(START, given_steps)[-1]
    assert record_from_jsonld(to_jsonld(record), where="x") == record
    assert record_from_turtle(to_turtle(record), where="x") == record


CONTRADICTIONS: list[tuple[list[Relation], str, int]] = [
    (["liked", "disliked"], "disliked", 1),
    (["disliked", "liked", "disliked"], "disliked", 2),
    (["liked", "seen"], "liked", 0),
    (["disliked", "seen"], "disliked", 0),
    (["unseen", "seen"], "seen", 1),
    (["suggested", "liked"], "liked", 1),
    (["liked", "unseen"], "unseen", 1),
    (["liked", "liked"], "liked", 0),
]


@pytest.mark.parametrize(("said", "holds", "num_past"), CONTRADICTIONS)
def test_contradictions_end_as_the_stated_rules_say(
    said: list[Relation], holds: str, num_past: int
) -> None:
    record = PersonalRecord("p1")
    for relation in said:
        record = say(record, relation, "a")
    assert [fact.relation for fact in record.graph.facts] == [holds]
    assert len(record.past) == num_past
    assert len(record.edits) == num_past + 1


def test_a_new_fact_comes_after_all_others_the_forgotten_ones_too() -> None:
    far = Fact("liked", "z", "Film z", Moment(7, 3), SAID)
    record = PersonalRecord.of(PersonalGraph("p1", (far,)))
    record = record.edited("forget", NOON, OWN, forget={"z"})
    record = record.edited(
        "like",
        NOON,
        OWN,
        verdicts=[Verdict("liked", "b", "Film b"), Verdict("liked", "a", "Film a")],
    )
    assert [(f.tail, f.time) for f in record.graph.facts] == [
        ("b", Moment(8, 0)),
        ("a", Moment(8, 1)),
    ]
    assert record.past == (Statement(far, None, 1),)


def test_an_item_keeps_its_name_so_that_the_file_can_be_read() -> None:
    record = START.edited("x", NOON, OWN, verdicts=[Verdict("disliked", "a", "Film A, renamed")])
    assert [fact.name for fact in record.graph.facts] == ["Film a"]
    assert record_from_jsonld(to_jsonld(record), where="x") == record


def test_an_item_keeps_its_class() -> None:
    verdict = Verdict("liked", "r1", "Dal", "Recipe")
    record = PersonalRecord("p1").edited("like", NOON, OWN, verdicts=[verdict])
    again = record.edited("dislike", NOON, OWN, verdicts=[Verdict("disliked", "r1", "Dal")])
    assert [fact.item_class for fact in again.graph.facts] == ["Recipe"]
    (made,) = record.statements
    assert isinstance(made.content, Fact)
    film = replace(made.content, relation="seen", item_class="Movie")
    with pytest.raises(
        ValueError, match=r"an item has one class, got 'Movie' and 'Recipe' for 'r1'"
    ):
        PersonalRecord(
            "p1", (replace(made, made_by=None, ended_by=1), Statement(film)), record.edits
        )


def test_a_rule_replaces_the_one_of_its_scope_and_value_and_ids_are_not_used_again() -> None:
    record = START.edited("rule", NOON, OWN, wishes=[Wish("avoid", "genre", "Horror", 0.5)])
    record = record.edited("rule", NOON, OWN, wishes=[Wish("prefer", "genre", "Horror")])
    assert [(r.id, r.direction, r.strength) for r in record.rules] == [("r2", "prefer", 1.0)]
    record = record.edited("rule", NOON, OWN, drop={"r2"})
    record = record.edited("rule", NOON, OWN, wishes=[Wish("prefer", "genre", "Horror")])
    assert [rule.id for rule in record.rules] == ["r3"]
    assert [s.content.id for s in record.past if isinstance(s.content, Rule)] == ["r1", "r2"]
    assert record.edited("x", NOON, OWN, wishes=[Wish("prefer", "genre", "Horror")]) is record


def test_what_is_not_there_cannot_be_forgotten_or_dropped() -> None:
    with pytest.raises(ValueError, match="there is no current fact about the item 'q'"):
        START.edited("forget", NOON, OWN, forget={"q"})
    with pytest.raises(ValueError, match="there is no current rule 'r9'"):
        START.edited("drop", NOON, OWN, drop={"r9"})
    with pytest.raises(ValueError, match="there is no edit to undo"):
        START.undone()


def test_without_history_nothing_tells_of_the_past() -> None:
    record = say(say(START, "liked", "b"), "disliked", "a")
    plain = record.without_history()
    assert plain.graph == record.graph
    assert (plain.past, plain.edits) == ((), ())
    assert to_jsonld(plain) == to_jsonld(record.graph)


RULE = Rule("r1", "genre", "Horror", "avoid", 1.0, OWN)
FACT = Fact("liked", "a", "Film a", Moment(0, 0), SAID)
FIRST, SECOND = Edit(1, "like", NOON), Edit(2, "like", NOON)


@pytest.mark.parametrize(
    ("statements", "edits", "message"),
    [
        ((), (SECOND,), r"edits are numbered 1, 2, \.\.\. in order, got 2"),
        ((), (Edit(1, "like", datetime(2026, 5, 1)),), "edit 1 must have a time zone"),
        ((Statement(FACT, 1),), (), "names edit 1, which is missing"),
        ((Statement(FACT, 2, 1),), (FIRST, SECOND), "ended by edit 1 and made by edit 2"),
        ((Statement(FACT), Statement(FACT)), (), "an item has at most one fact"),
        ((Statement(FACT, None, 1), Statement(FACT, None, 1)), (FIRST,), "edit 1 ends two facts"),
        (
            (Statement(RULE, None, 1), Statement(RULE)),
            (FIRST,),
            "rule's id must be unique, got 'r1'",
        ),
        (
            (Statement(FACT, None, 1), Statement(replace(FACT, name="Other"))),
            (FIRST,),
            "an item has one name, got 'Film a' and 'Other'|an item has one name, got 'Other' and",
        ),
        (
            (Statement(RULE), Statement(Rule("r2", "genre", "Horror", "prefer", 0.5, OWN))),
            (),
            "at most one rule is about genre 'Horror', got two",
        ),
    ],
)
def test_a_record_that_contradicts_itself_is_refused(
    statements: tuple[Statement, ...], edits: tuple[Edit, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        PersonalRecord("p1", statements, edits)
