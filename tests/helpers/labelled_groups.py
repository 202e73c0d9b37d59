"""Groups of which only the labels matter; every completion is told apart by its item."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from hypothesis import strategies as st

from pkgllm.prompts.groups import Completion, Group, with_mismatched
from pkgllm.prompts.prompts import Prompt

Labels = Sequence[Sequence[bool]]

label_lists = st.lists(st.lists(st.booleans(), min_size=1, max_size=7), min_size=1, max_size=5)
"""Of one client: its groups, and in each the labels of the completions."""

populations = st.dictionaries(
    st.text("abc1", min_size=1, max_size=3), label_lists, min_size=1, max_size=7
)


def own_groups(client: str, labels: Labels) -> tuple[Group, ...]:
    """Groups of a client with completions of the given labels."""
    return with_mismatched(
        [
            Group(
                Prompt(client, "", f"{client}-{number}", (number,), frozenset(), 0),
                tuple(
                    Completion(f"{client}-{number}-{place}", (place,), desirable, "liked")
                    for place, desirable in enumerate(own)
                ),
            )
            for number, own in enumerate(labels)
        ]
    )


def everybody(population: Mapping[str, Labels]) -> dict[str, tuple[Group, ...]]:
    """Groups of several clients."""
    return {client: own_groups(client, labels) for client, labels in population.items()}


def examples(groups: Iterable[Group]) -> Counter[tuple[Prompt, Completion]]:
    """Every completion with the prompt that it is asked for."""
    return Counter(
        (group.prompt, completion) for group in groups for completion in group.completions
    )


def assert_mismatched_are_the_next(groups: Sequence[Group]) -> None:
    """Each group must have the completions of the next one, and the last those of the first."""
    for group, following in zip(groups, (*groups[1:], *groups[:1]), strict=True):
        assert group.mismatched == following.completions


def assert_cut_from(groups: Sequence[Group], whole: Sequence[Group]) -> None:
    """Nothing may be there that the client did not have, and no group may be empty."""
    order = [group.prompt for group in whole]
    places = [order.index(group.prompt) for group in groups]
    assert places == sorted(set(places))
    for group, place in zip(groups, places, strict=True):
        assert group.completions
        remaining = iter(whole[place].completions)
        # Membership in an iterator moves it on, so the order is compared too.
        assert all(completion in remaining for completion in group.completions)
    assert_mismatched_are_the_next(groups)
