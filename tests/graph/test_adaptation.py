from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pkgllm.graph.adaptation import adapt
from pkgllm.graph.personal_graph import (
    RELATIONS,
    Fact,
    Moment,
    PersonalGraph,
    Provenance,
    Relation,
)
from pkgllm.graph.rules import Direction, Rule

SAID = Provenance("own_answer", "conversation/1")


def graph_of(said: Mapping[str, Relation]) -> PersonalGraph:
    facts = (
        Fact(relation, item, f"Film {item}", Moment(0, place), SAID)
        for place, (item, relation) in enumerate(said.items())
    )
    return PersonalGraph("me", tuple(facts))


def rule(strength: float, direction: Direction = "avoid", name: str = "r1") -> Rule:
    return Rule(name, "genre", "horror", direction, strength, SAID)


def relations(graph: PersonalGraph) -> dict[str, Relation]:
    return {fact.tail: fact.relation for fact in graph.facts}


ME = graph_of(
    {"1": "liked", "2": "liked", "3": "seen", "4": "seen", "5": "disliked", "6": "unseen"}
)
INSIDE = frozenset({"1", "3", "5"})


@pytest.mark.parametrize(
    ("strength", "what"),
    [(0.2, "seen"), (0.4, "disliked"), (0.6, "disliked"), (0.7, None), (1.0, None)],
)
def test_a_like_inside_is_weakened_removed_or_turned(
    strength: float, what: Relation | None
) -> None:
    adapted = adapt(ME, [rule(strength)], {"r1": INSIDE})
    actual = relations(adapted.graph)
    assert actual.get("1") == what
    # Outside, what was only seen now stands where those likes stood.
    assert actual["4"] == "liked"
    assert {item: actual[item] for item in "2356"} == {
        "2": "liked",
        "3": "seen",
        "5": "disliked",
        "6": "unseen",
    }
    assert [(c.fact.tail, c.relation) for c in adapted.changes] == [("1", what), ("4", "liked")]


def test_what_is_preferred_and_seen_becomes_a_like() -> None:
    adapted = adapt(ME, [rule(0.1, "prefer")], {"r1": INSIDE})
    assert relations(adapted.graph) == {**relations(ME), "3": "liked"}


def test_the_stronger_rule_decides_and_of_equals_the_one_that_avoids() -> None:
    both = {"r1": {"1"}, "r2": {"1"}}
    for avoid, prefer, left in (
        (1.0, 0.5, None),
        (0.5, 1.0, "liked"),
        (1.0, 1.0, None),
    ):
        rules = [rule(prefer, "prefer", "r2"), rule(avoid)]
        assert relations(adapt(ME, rules, both).graph).get("1") == left


@given(
    st.dictionaries(st.sampled_from("abcdefgh"), st.sampled_from(RELATIONS)),
    st.frozensets(st.sampled_from("abcdefgh")),
    st.floats(0.01, 1.0),
)
def test_an_adapted_graph_likes_nothing_inside_and_invents_nothing(
    said: dict[str, Relation], inside: frozenset[str], strength: float
) -> None:
    graph = graph_of(said)
    adapted = adapt(graph, [rule(strength)], {"r1": inside})
    assert not {fact.tail for fact in adapted.graph.with_relation("liked")} & inside
    assert adapted.graph.tails <= graph.tails
    assert relations(graph) == said
    changed = {change.fact.tail: change for change in adapted.changes}
    after = relations(adapted.graph)
    for item, relation in said.items():
        if item in changed:
            assert changed[item].fact.relation == relation
            assert after.get(item) == changed[item].relation != relation
        else:
            assert after[item] == relation


def test_no_rule_changes_nothing() -> None:
    assert adapt(ME, [], {}).graph == ME
    assert adapt(ME, [rule(1.0)], {"r1": frozenset(ME.tails)}).graph.with_relation("liked") == ()
