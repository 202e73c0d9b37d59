import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.some_graphs import CATALOGUE, NUM_ITEMS, a_fact, graphs, liked, said, sizes
from pkgllm.corpora.splits import split_client
from pkgllm.graph.personal_graph import PersonalGraph
from pkgllm.prompts.groups import Group, GroupBuilder
from pkgllm.prompts.prompts import PromptWriter
from pkgllm.prompts.settings import GroupSettings, Negatives
from pkgllm.randomness import stream

Build = Callable[..., tuple[Group, ...]]


counts = st.builds(Negatives, known=st.integers(0, 5), uniform=st.integers(0, NUM_ITEMS + 3))


@pytest.fixture(scope="module")
def build(prose_writer: PromptWriter) -> Build:
    def build(
        graph: PersonalGraph, negatives: Negatives, *, seed: int = 0, **more: Any
    ) -> tuple[Group, ...]:
        builder = GroupBuilder(CATALOGUE, prose_writer, negatives)
        wanted = {"hidden_facts": 3, "stride": 2, "min_context": 1, "max_groups": 16} | more
        return builder.build(graph, stream(seed, "groups", graph.owner), GroupSettings(**wanted))

    return build


def items(group: Group, *sources: str) -> list[str]:
    return [c.item for c in group.completions if c.source in sources]


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(graph=graphs, wanted=sizes, negatives=counts)
def test_what_every_group_promises(
    build: Build, graph: PersonalGraph, wanted: dict[str, int], negatives: Negatives
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
    negatives = Negatives(known=1, uniform=4)
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
    graph, negatives = liked(6), Negatives(uniform=4)
    drawn = {tuple(items(build(graph, negatives, seed=s)[0], "uniform")) for s in range(5)}
    assert len(drawn) > 1


@settings(max_examples=60, deadline=None)
@given(graph=graphs, wanted=sizes)
def test_nothing_held_out_is_seen_by_the_builder(
    build: Build, graph: PersonalGraph, wanted: dict[str, int]
) -> None:
    if not graph.with_relation("liked"):
        graph = graph.only([*graph.without(["00"]).facts, a_fact(0, "liked", 3)])
    split = split_client(graph, test_share=0.3, validation_share=0.2, seen_in_training=True)
    held_out = {fact.tail for fact in split.validation + split.test}
    negatives = Negatives(known=2, uniform=NUM_ITEMS)
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
            trained_on.append(build(split.train_graph, Negatives(uniform=4), seed=seed))
        assert trained_on[0] == trained_on[1]
        drawn = {item for group in trained_on[0] for item in items(group, "uniform")}
        tests_drawn += len(drawn & {"10", "11", "15", "16"})
    assert tests_drawn > 0


@pytest.mark.slow
def test_uniform_negatives_are_uniform(build: Build) -> None:
    # 2 of 22 films, 1000 times: each is drawn 1000 * 2 / 22 = 91 times, with a standard deviation
    # of sqrt(1000 * 2 / 22 * 20 / 22) = 9.
    graph = said("liked", "liked")
    drawn = [
        item
        for seed in range(1000)
        for item in items(build(graph, Negatives(uniform=2), seed=seed)[0], "uniform")
    ]
    tally = np.bincount([int(item) for item in drawn], minlength=NUM_ITEMS)
    assert tally[:2].tolist() == [0, 0]
    assert np.abs(tally[2:] - 1000 * 2 / 22).max() < 5 * 9


def test_groups_are_frozen(build: Build) -> None:
    (group, *_) = build(said("liked", "liked"), Negatives())
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
