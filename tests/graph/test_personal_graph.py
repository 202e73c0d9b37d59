import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pkgllm.graph.personal_graph import (
    RELATIONS,
    Fact,
    Moment,
    PersonalGraph,
    Provenance,
    Relation,
    Triple,
)

SAID = Provenance("own_answer", "conversation/1")


def fact(relation: Relation, tail: str, session: int, position: int = 0) -> Fact:
    return Fact(relation, tail, f"Film {tail}", Moment(session, position), SAID)


moments = st.builds(Moment, st.integers(0, 5), st.integers(0, 5))
graphs = st.builds(
    PersonalGraph,
    st.just("p1"),
    st.lists(
        st.builds(
            lambda relation, tail, time: Fact(relation, str(tail), f"Film {tail}", time, SAID),
            st.sampled_from(RELATIONS),
            st.integers(0, 30),
            moments,
        ),
        unique_by=lambda made: made.tail,
    ).map(tuple),
)


def test_facts_are_kept_in_order_of_time_whatever_the_order_given() -> None:
    late, early, middle = fact("liked", "1", 2), fact("seen", "2", 0, 1), fact("liked", "3", 0, 2)
    graph = PersonalGraph("p1", (late, early, middle))
    assert graph.facts == (early, middle, late)
    assert graph == PersonalGraph("p1", (middle, late, early))


def test_facts_of_the_same_moment_are_in_order_of_their_items() -> None:
    graph = PersonalGraph("p1", (fact("liked", "b", 0), fact("liked", "a", 0)))
    assert [made.tail for made in graph.facts] == ["a", "b"]


def test_two_facts_about_one_item_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"graph of 'p1': an item has at most one fact.*about '7'"):
        PersonalGraph("p1", (fact("liked", "7", 0), fact("seen", "7", 1)))


def test_triples_have_the_owner_as_head() -> None:
    graph = PersonalGraph("p1", (fact("disliked", "7", 0),))
    assert graph.triples() == (Triple("p1", "disliked", "7"),)


def test_a_graph_and_its_facts_cannot_be_changed() -> None:
    graph = PersonalGraph("p1", (fact("liked", "7", 0),))
    with pytest.raises(dataclasses.FrozenInstanceError):
        graph.owner = "p2"  # type: ignore[misc] # the assignment is what is tested
    with pytest.raises(dataclasses.FrozenInstanceError):
        graph.facts[0].name = "other"  # type: ignore[misc] # as above


@pytest.mark.slow
@given(graphs, moments)
def test_before_keeps_exactly_the_strictly_earlier_facts(
    graph: PersonalGraph, moment: Moment
) -> None:
    earlier = graph.before(moment)
    assert earlier.owner == graph.owner
    assert set(earlier.facts) == {made for made in graph.facts if made.time < moment}


@given(graphs)
def test_the_relations_part_the_facts(graph: PersonalGraph) -> None:
    parts = [graph.with_relation(relation) for relation in RELATIONS]
    assert sum(map(len, parts)) == len(graph.facts)
    assert graph.with_relation(*RELATIONS) == graph.facts
    liked = graph.with_relation("liked")
    assert [made.time for made in liked] == sorted(made.time for made in liked)


@given(graphs, st.sets(st.integers(0, 30).map(str)))
def test_without_removes_the_items_and_nothing_else(graph: PersonalGraph, tails: set[str]) -> None:
    assert graph.without(tails).tails == graph.tails - tails
    assert set(graph.without(tails).facts) <= set(graph.facts)


def test_only_keeps_the_owner() -> None:
    graph = PersonalGraph("p1", (fact("liked", "7", 0), fact("seen", "8", 1)))
    assert graph.only(graph.facts[1:]) == PersonalGraph("p1", (fact("seen", "8", 1),))
