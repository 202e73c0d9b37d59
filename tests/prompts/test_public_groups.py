"""Groups of people who are made up from the catalogue."""

from collections.abc import Callable

import pytest

from pkgllm.corpora.catalogue import Catalogue, Item
from pkgllm.prompts.groups import Group, GroupBuilder
from pkgllm.prompts.prompts import PromptWriter
from pkgllm.prompts.public_groups import NUM_PUBLIC_GROUPS, public_groups
from pkgllm.prompts.settings import GroupSettings, Negatives

WINDOWS = GroupSettings(hidden_facts=3, stride=2, min_context=2, max_groups=5, max_context=6)

Make = Callable[..., tuple[Group, ...]]


def films(count: int) -> Catalogue:
    return Catalogue(Item(f"{n:03}", f"Film {n} ({1900 + n})") for n in range(count))


@pytest.fixture(scope="module")
def make(prose_writer: PromptWriter) -> Make:
    def make(
        catalogue: Catalogue, windows: GroupSettings = WINDOWS, *, seed: int = 0
    ) -> tuple[Group, ...]:
        builder = GroupBuilder(catalogue, prose_writer, Negatives(known=1, uniform=2))
        return public_groups(catalogue, builder, windows, seed=seed)

    return make


def test_they_are_made_of_the_catalogue_as_the_runs_own_groups_are(make: Make) -> None:
    groups = make(films(60))
    assert len(groups) == NUM_PUBLIC_GROUPS
    for group in groups:
        liked = [c.item for c in group.completions if c.source == "liked"]
        assert len(set(liked)) == len(liked) == 3
        assert group.prompt.tails.isdisjoint(liked)
        assert [c.source for c in group.completions[3:]] == ["known", "uniform", "uniform"]
        # All that the prompt says of a person is a list of liked films.
        for item in films(60):
            assert (item.name in group.prompt.text) == (item.id in group.prompt.tails)
    assert {len(group.prompt.tails) for group in groups} == {2, 3, 4, 5, 6}
    # Nobody likes the same films, so no film speaks for all prompts.
    assert len({group.prompt.tails for group in groups}) == NUM_PUBLIC_GROUPS
    assert len(set.union(*(set(group.prompt.tails) for group in groups))) > 40


def test_mismatched_completions_are_those_of_the_next(make: Make) -> None:
    groups = make(films(60))
    for index, group in enumerate(groups):
        assert group.mismatched == groups[(index + 1) % len(groups)].completions


def test_catalogue_settings_and_seed_decide(make: Make) -> None:
    assert make(films(60)) == make(films(60))
    assert make(films(60), seed=1) != make(films(60))
    assert make(films(61)) != make(films(60))


def test_without_a_maximum_a_prompt_holds_at_most_sixteen_films(make: Make) -> None:
    sizes = {
        len(group.prompt.tails)
        for group in make(
            films(200), GroupSettings(hidden_facts=3, stride=2, min_context=1, max_groups=5)
        )
    }
    assert max(sizes) <= 16
    assert len(sizes) > 8
    long = make(films(200), GroupSettings(hidden_facts=3, stride=2, min_context=20, max_groups=5))
    assert {len(group.prompt.tails) for group in long} == {20}


@pytest.mark.parametrize("count", [1, 2, 4, 7])
def test_a_small_catalogue_still_gives_pairs(make: Make, count: int) -> None:
    groups = make(films(count))
    assert len(groups) == NUM_PUBLIC_GROUPS
    assert all(group.mismatched for group in groups)
