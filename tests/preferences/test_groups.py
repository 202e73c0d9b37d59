import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from pkgllm.corpora.catalogue import Catalogue, Item
from pkgllm.corpora.splits import split_client
from pkgllm.graph.personal_graph import RELATIONS, Fact, Moment, PersonalGraph, Provenance, Relation
from pkgllm.preferences.groups import (
    Group,
    GroupBuilder,
    NegativeCounts,
    hidden_windows,
)
from pkgllm.preferences.prompts import PromptWriter
from pkgllm.randomness import stream

SAID = Provenance("own_answer", "conversation/1")
NUM_ITEMS = 24
CATALOGUE = Catalogue([Item(f"{n:02}", f"Film {n:02}") for n in range(NUM_ITEMS)])

Build = Callable[..., tuple[Group, ...]]


def a_fact(item: int, relation: Relation, session: int, position: int = 0) -> Fact:
    return Fact(relation, f"{item:02}", f"Film {item:02}", Moment(session, position), SAID)


def said(*relations: Relation) -> PersonalGraph:
    """One fact for each relation, in order of time, about the films 00, 01, ..."""
    return PersonalGraph(
        "p1", tuple(a_fact(n, relation, n) for n, relation in enumerate(relations))
    )


def liked(count: int) -> PersonalGraph:
    return PersonalGraph("p1", tuple(a_fact(n, "liked", n) for n in range(count)))


# Few moments, so that facts of the same moment occur.
graphs = st.builds(
    lambda facts: PersonalGraph("p1", tuple(facts)),
    st.lists(
        st.builds(
            a_fact,
            st.integers(0, NUM_ITEMS - 1),
            # Mostly verdicts, since only those are hidden.
            st.sampled_from(("liked", "liked", "disliked", *RELATIONS)),
            st.integers(0, 6),
            st.integers(0, 3),
        ),
        unique_by=lambda fact: fact.tail,
        max_size=NUM_ITEMS,
    ),
)
sizes = st.fixed_dictionaries(
    {
        "hidden_facts": st.integers(1, 9),
        "stride": st.integers(1, 9),
        "min_context": st.integers(0, 4),
        "max_groups": st.integers(0, 8),
    }
)
counts = st.builds(NegativeCounts, st.integers(0, 5), st.integers(0, NUM_ITEMS + 3))


@pytest.fixture(scope="module")
def build(tiny_base_folder: Path) -> Build:
    writer = PromptWriter(
        AutoTokenizer.from_pretrained(tiny_base_folder),
        form="prose",
        instruction="",
        request="Recommend movies to me.",
        max_tokens=100_000,
    )

    def build(
        graph: PersonalGraph, negatives: NegativeCounts, *, seed: int = 0, **more: int
    ) -> tuple[Group, ...]:
        builder = GroupBuilder(CATALOGUE, writer, negatives)
        wanted = {"hidden_facts": 3, "stride": 2, "min_context": 1, "max_groups": 16} | more
        return builder.build(graph, stream(seed, "groups", graph.owner), **wanted)

    return build


def items(group: Group, *sources: str) -> list[str]:
    return [c.item for c in group.completions if c.source in sources]


@settings(max_examples=150, deadline=None)
@given(graph=graphs, wanted=sizes, negatives=counts)
def test_what_every_group_promises(
    build: Build, graph: PersonalGraph, wanted: dict[str, int], negatives: NegativeCounts
) -> None:
    fact_by_item = {fact.tail: fact for fact in graph.facts}
    groups = build(graph, negatives, **wanted)
    assert len(groups) <= wanted["max_groups"]
    for group in groups:
        hidden = items(group, "liked", "disliked")
        assert 1 <= len(hidden) <= wanted["hidden_facts"]
        assert items(group, "liked")
        first = min(fact_by_item[item].time for item in hidden)
        # The budget is large, so the prompt speaks of everything strictly earlier.
        assert group.prompt.tails == {fact.tail for fact in graph.facts if fact.time < first}
        assert len(group.prompt.tails) >= wanted["min_context"]
        assert not group.prompt.tails & set(hidden)
        known, uniform = items(group, "known"), items(group, "uniform")
        assert len(set(known)) == len(known) == min(negatives.known, len(group.prompt.tails))
        assert set(known) <= group.prompt.tails
        allowed = {item.id for item in CATALOGUE} - group.prompt.tails - set(hidden)
        assert len(set(uniform)) == len(uniform) == min(negatives.uniform, len(allowed))
        assert set(uniform) <= allowed
        for completion in group.completions:
            assert completion.desirable == (completion.source == "liked")
            if completion.item in hidden:
                assert completion.source == fact_by_item[completion.item].relation


@settings(max_examples=60, deadline=None)
@given(graph=graphs, wanted=sizes, seed=st.integers(0, 3))
def test_the_generator_decides_and_the_latest_windows_are_kept(
    build: Build, graph: PersonalGraph, wanted: dict[str, int], seed: int
) -> None:
    negatives = NegativeCounts(known=1, uniform=4)
    everything = build(graph, negatives, seed=seed, **(wanted | {"max_groups": 1000}))
    some = build(graph, negatives, seed=seed, **wanted)
    assert some == build(graph, negatives, seed=seed, **wanted)
    assert [dataclasses.replace(g, mismatched=()) for g in some] == [
        dataclasses.replace(g, mismatched=()) for g in everything[: wanted["max_groups"]]
    ]
    time_by_item = {fact.tail: fact.time for fact in graph.facts}
    starts = [time_by_item[group.completions[0].item] for group in everything]
    assert starts == sorted(starts, reverse=True)
    for index, group in enumerate(some):
        assert group.mismatched == some[(index + 1) % len(some)].completions


def test_another_seed_draws_other_negatives(build: Build) -> None:
    graph, negatives = liked(6), NegativeCounts(uniform=4)
    drawn = {tuple(items(build(graph, negatives, seed=s)[0], "uniform")) for s in range(5)}
    assert len(drawn) > 1


def windows(graph: PersonalGraph, **wanted: int) -> list[tuple[str, str]]:
    """Context and hidden films of each window, one digit a film."""
    found = hidden_windows(graph, **wanted)
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


@settings(max_examples=60, deadline=None)
@given(graph=graphs, wanted=sizes)
def test_nothing_held_out_is_seen_by_the_builder(
    build: Build, graph: PersonalGraph, wanted: dict[str, int]
) -> None:
    if not graph.with_relation("liked"):
        graph = graph.only([*graph.without(["00"]).facts, a_fact(0, "liked", 3)])
    split = split_client(graph, test_share=0.3, validation_share=0.2, seen_in_training=True)
    held_out = {fact.tail for fact in split.validation + split.test}
    negatives = NegativeCounts(known=2, uniform=NUM_ITEMS)
    groups = build(split.train_graph, negatives, **wanted)
    for group in groups:
        assert not group.prompt.tails & held_out
        assert not set(items(group, "liked", "disliked", "known")) & held_out
        # A held-out film is drawn like any other, because nobody here knows that it is one.
        assert held_out <= set(items(group, "uniform"))


def test_the_draw_is_the_same_whatever_the_person_likes_later(build: Build) -> None:
    past = liked(8)
    tests_drawn = 0
    for seed in range(10):
        trained_on = []
        for later in ((10, 11), (15, 16)):
            future = past.only([*past.facts, *(a_fact(n, "liked", 8) for n in later)])
            split = split_client(future, test_share=0.2, validation_share=0, seen_in_training=True)
            assert {int(fact.tail) for fact in split.test} == set(later)
            trained_on.append(build(split.train_graph, NegativeCounts(uniform=4), seed=seed))
        assert trained_on[0] == trained_on[1]
        drawn = {item for group in trained_on[0] for item in items(group, "uniform")}
        tests_drawn += len(drawn & {"10", "11", "15", "16"})
    assert tests_drawn > 0


def test_uniform_negatives_are_uniform(build: Build) -> None:
    # 2 of 22 films, 1000 times: each is drawn 1000 * 2 / 22 = 91 times, with a standard deviation
    # of sqrt(1000 * 2 / 22 * 20 / 22) = 9.
    graph = said("liked", "liked")
    drawn = [
        item
        for seed in range(1000)
        for item in items(build(graph, NegativeCounts(uniform=2), seed=seed)[0], "uniform")
    ]
    tally = np.bincount([int(item) for item in drawn], minlength=NUM_ITEMS)
    assert tally[:2].tolist() == [0, 0]
    assert np.abs(tally[2:] - 1000 * 2 / 22).max() < 5 * 9


def test_groups_are_frozen(build: Build) -> None:
    (group, *_) = build(said("liked", "liked"), NegativeCounts())
    parts: list[tuple[Any, str]] = [
        (group, "completions"),
        (group.completions[0], "desirable"),
        (group.prompt, "text"),
    ]
    for part, name in parts:
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(part, name, None)
    assert isinstance(group.completions, tuple)
    assert isinstance(group.prompt.token_ids, tuple)
    assert hash(group) == hash(dataclasses.replace(group))
