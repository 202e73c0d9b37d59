"""Which facts stand together in a window, and how many windows a fact may enter."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.some_graphs import a_fact, graphs, liked, said, sizes
from pkgllm.graph.personal_graph import Fact, PersonalGraph
from pkgllm.prompts.settings import GroupSettings
from pkgllm.prompts.windows import hidden_windows


def windows(
    graph: PersonalGraph, *, max_groups_per_fact: int | None = None, **wanted: Any
) -> list[tuple[str, str]]:
    """Context and hidden films of each window, one digit a film."""
    found = hidden_windows(graph, GroupSettings(**wanted), max_groups_per_fact=max_groups_per_fact)
    return [
        ("".join(fact.tail[1] for fact in context.facts), "".join(fact.tail[1] for fact in hidden))
        for context, hidden in found
    ]


def test_windows_by_hand() -> None:
    ten = liked(10)
    wanted = {"hidden_facts": 3, "stride": 2, "min_context": 1, "max_groups": 16}
    # The last window starts at 10 - 3 = 7; the one at -1 does not exist.
    assert windows(ten, **wanted) == [
        ("0123456", "789"),
        ("01234", "567"),
        ("012", "345"),
        ("0", "123"),
    ]
    assert windows(ten, **(wanted | {"max_groups": 2})) == [("0123456", "789"), ("01234", "567")]
    assert windows(ten, **(wanted | {"min_context": 4})) == [("0123456", "789"), ("01234", "567")]
    assert windows(ten, **(wanted | {"stride": 9, "hidden_facts": 1})) == [("012345678", "9")]


def test_facts_that_are_no_verdict_stand_in_the_context_and_are_never_hidden() -> None:
    graph = said("seen", "liked", "suggested", "unseen", "disliked", "liked", "seen")
    wanted = {"hidden_facts": 2, "stride": 1, "min_context": 1, "max_groups": 16}
    # Verdicts are 1, 4 and 5; film 6 comes after every one of them.
    assert windows(graph, **wanted) == [("0123", "45"), ("0", "14")]


def test_a_window_without_a_like_is_skipped_and_not_counted() -> None:
    graph = said("seen", "liked", "liked", "disliked", "disliked", "disliked", "liked")
    wanted = {"hidden_facts": 1, "stride": 1, "min_context": 1, "max_groups": 2}
    assert windows(graph, **wanted) == [("012345", "6"), ("01", "2")]


def test_what_is_said_at_the_same_moment_is_not_strictly_earlier() -> None:
    same = (a_fact(0, "liked", 0), a_fact(1, "seen", 1), a_fact(2, "liked", 1))
    wanted = {"hidden_facts": 1, "stride": 1, "min_context": 0, "max_groups": 1}
    assert windows(PersonalGraph("p1", same), **wanted) == [("0", "2")]


@pytest.mark.parametrize(
    ("graph", "expected"),
    [
        (said(), []),
        (said("seen", "suggested"), []),
        (said("disliked"), []),
        (said("liked"), [("", "0")]),
        (said("seen", "liked"), [("0", "1")]),
        # Fewer verdicts than a window holds: the first is left as context.
        (said("liked", "liked"), [("0", "1")]),
        (said("liked", "disliked", "liked"), [("0", "12")]),
    ],
)
def test_short_graphs(graph: PersonalGraph, expected: list[tuple[str, str]]) -> None:
    wanted = {"hidden_facts": 8, "stride": 4, "min_context": 0, "max_groups": 16}
    assert windows(graph, **wanted) == expected
    with_context = [window for window in expected if window[0]]
    assert windows(graph, **(wanted | {"min_context": 1})) == with_context


def facts_of(
    graph: PersonalGraph, wanted: GroupSettings, bound: int | None
) -> list[tuple[Fact, ...]]:
    """All facts of each window."""
    found = hidden_windows(graph, wanted, max_groups_per_fact=bound)
    return [(*context.facts, *hidden) for context, hidden in found]


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(graphs, sizes, st.integers(1, 4), st.none() | st.integers(1, 6))
def test_no_fact_enters_more_windows_than_it_may(
    graph: PersonalGraph, sizes: dict[str, Any], bound: int, max_context: int | None
) -> None:
    if max_context is not None:
        max_context = max(max_context, sizes["min_context"])
    wanted = GroupSettings(**sizes, max_context=max_context)
    found = facts_of(graph, wanted, bound)
    entered = Counter(fact.tail for window in found for fact in window)
    assert all(count <= bound for count in entered.values())
    unbound = facts_of(graph, wanted, None)
    # The first window is what it would be without a bound.
    assert found[:1] == unbound[:1]
    for context, hidden in hidden_windows(graph, wanted, max_groups_per_fact=bound):
        assert max_context is None or len(context.facts) <= max_context
        assert len(context.facts) >= min(wanted.min_context, max_context or len(graph.facts))
        assert all(fact.time < hidden[0].time for fact in context.facts)


@settings(max_examples=100, deadline=None)
@given(graphs, sizes)
def test_a_bound_that_no_fact_reaches_changes_nothing(
    graph: PersonalGraph, sizes: dict[str, Any]
) -> None:
    without = GroupSettings(**sizes)
    bound = replace(without, max_context=1000)
    found = hidden_windows(graph, bound, max_groups_per_fact=1000)
    assert list(found) == list(hidden_windows(graph, without))


def test_the_newest_facts_that_may_still_enter_are_the_context() -> None:
    bound = {"max_context": 3, "max_groups_per_fact": 2}
    found = windows(liked(10), hidden_facts=2, stride=2, min_context=1, max_groups=16, **bound)
    # 7, 6 and 5 stood before 89; 67 is hidden then and spent. 5 stands before it again and so may
    # not be hidden a third time, which passes 45 over; 23 is asked for after what is left.
    assert found == [("567", "89"), ("345", "67"), ("01", "23")]


def test_a_spent_fact_is_left_out_of_the_context_of_what_was_said_at_the_same_moment() -> None:
    graph = liked(2).only([*liked(2).facts, a_fact(2, "liked", 2), a_fact(3, "liked", 2)])
    shape = {"hidden_facts": 1, "stride": 1, "max_groups": 16, "max_groups_per_fact": 1}
    # 0 and 1 stand before 3, and would stand before 2 too.
    assert windows(graph, **shape, min_context=0) == [("01", "3"), ("", "2")]
    assert windows(graph, **shape, min_context=1) == [("01", "3")]
    # The newest of those that may still enter: 1 is spent, so 0 takes its place.
    assert windows(graph, **shape, min_context=1, max_context=1) == [("1", "3"), ("0", "2")]


def test_a_longer_context_leaves_fewer_windows() -> None:
    shape = {"hidden_facts": 2, "stride": 2, "min_context": 1, "max_groups": 16}
    numbers = [
        len(windows(liked(24), **shape, max_groups_per_fact=2, max_context=longest))
        for longest in (2, 4, 24)
    ]
    assert numbers == sorted(numbers, reverse=True)
    assert numbers[0] > numbers[-1]


def test_min_context_counts_facts_that_may_still_enter() -> None:
    shape = {"hidden_facts": 1, "stride": 1, "max_groups": 16, "max_groups_per_fact": 1}
    assert windows(liked(4), **shape, min_context=0) == [("012", "3")]
    graph = said("seen", "liked", "liked")
    assert windows(graph, **shape, min_context=0, max_context=1) == [("1", "2")]
    assert windows(liked(4), **shape, min_context=1, max_context=1) == [("2", "3"), ("0", "1")]
    assert windows(liked(3), **shape, min_context=0, max_context=1) == [("1", "2"), ("", "0")]
