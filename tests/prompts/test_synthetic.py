from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.some_graphs import NUM_ITEMS, graphs, liked, said
from pkgllm.corpora.catalogue import Catalogue, Item
from pkgllm.graph.personal_graph import PersonalGraph
from pkgllm.prompts.groups import Group, GroupBuilder
from pkgllm.prompts.item_similarity import AdamicAdar
from pkgllm.prompts.prompts import PromptWriter
from pkgllm.prompts.settings import Negatives, SyntheticSettings
from pkgllm.prompts.synthetic import synthetic_groups
from pkgllm.randomness import stream

FILMS = Catalogue(
    Item(f"{n:02}", f"Film {n:02}", {"genre": (f"genre {n % 4}",)}) for n in range(NUM_ITEMS)
)
SIMILARITY = AdamicAdar(FILMS, ("genre",))

Make = Callable[..., tuple[Group, ...]]


@pytest.fixture(scope="module")
def make(prose_writer: PromptWriter) -> Make:
    def make(
        graph: PersonalGraph, *, seed: int = 0, max_context: int | None = None, **changes: Any
    ) -> tuple[Group, ...]:
        wanted = {"graph_edits": 4, "max_hidden": 10, "known_items": 2, "rule_facts": 3} | changes
        builder = GroupBuilder(FILMS, prose_writer, Negatives(known=0, uniform=2))
        generator = stream(seed, "synthetic", graph.owner)
        settings = SyntheticSettings(**wanted)
        return synthetic_groups(
            graph, builder, settings, SIMILARITY, generator, max_context=max_context
        )

    return make


def items(group: Group, *sources: str) -> set[str]:
    return {c.item for c in group.completions if c.source in sources}


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(graph=graphs, max_hidden=st.integers(1, 10), max_context=st.none() | st.integers(1, 5))
def test_what_every_edit_promises(
    make: Make, graph: PersonalGraph, max_hidden: int, max_context: int | None
) -> None:
    edits = make(graph, rule_facts=0, max_hidden=max_hidden, max_context=max_context)
    relation_by_item = {fact.tail: fact.relation for fact in graph.facts}
    possible = bool(graph.with_relation("liked")) and len(graph.facts) > 1
    assert len(edits) == (4 if possible else 0)
    for group in edits:
        hidden = items(group, "liked", "disliked")
        assert 1 <= len(hidden) <= max_hidden
        assert items(group, "liked")
        asked = [c for c in group.completions if c.item in hidden]
        assert all(c.source == relation_by_item[c.item] for c in asked)
        # What is hidden is nowhere in the prompt, and all else is, but for what is cut.
        assert not hidden & group.prompt.tails
        rest = relation_by_item.keys() - hidden
        assert group.prompt.tails <= rest
        assert len(group.prompt.tails) == min(len(rest), max_context or len(rest))
        assert items(group, "known") <= group.prompt.tails
        assert len(items(group, "known")) == min(2, len(group.prompt.tails))
        assert all(c.desirable == (c.source == "liked") for c in group.completions)


def test_facts_are_hidden_whatever_their_time(make: Make) -> None:
    hidden = {
        min(items(group, "liked"))
        for group in make(liked(8), graph_edits=40, max_hidden=1, rule_facts=0)
    }
    assert hidden == {f"{n:02}" for n in range(8)}


def test_every_number_of_hidden_facts_occurs(make: Make) -> None:
    sizes = [
        len(items(group, "liked"))
        for group in make(liked(12), graph_edits=120, max_hidden=4, rule_facts=0)
    ]
    assert [sizes.count(n) > 15 for n in (1, 2, 3, 4)] == [True] * 4
    assert max(sizes) == 4


def test_rule_facts_are_marked_new_and_connected_by_the_public_graph(make: Make) -> None:
    # Films 00 and 04 are of genre 0; 01 is disliked, so that genre 1 leads nowhere.
    graph = said("liked", "disliked", "seen", "seen", "liked")
    (group,) = make(graph, graph_edits=0)
    asked = items(group, "rule")
    assert len(asked) == 3
    assert not asked & graph.tails
    assert {int(item) % 4 for item in asked} == {0}
    assert all(c.desirable == (c.source == "rule") for c in group.completions)
    assert group.prompt.tails == graph.tails
    assert not items(group, "uniform") & asked


def test_the_same_seed_makes_the_same_groups_and_another_one_others(make: Make) -> None:
    assert make(liked(12)) == make(liked(12))
    assert make(liked(12)) != make(liked(12), seed=1)


def test_who_likes_nothing_gets_none(make: Make) -> None:
    assert make(said("disliked", "disliked", "seen")) == ()
    assert make(said()) == ()
