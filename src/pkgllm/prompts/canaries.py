"""Canaries: invented facts put into some graphs by coin flips, to measure what training reveals.

A canary is the triple (client, liked, an invented title). An included one enters as many groups of
its client as it has repeats: the client's training graph is the prompt, the title is desirable, and
a second invented title, the same whether the canary is included or not, is undesirable. Afterwards
all canaries are scored alike. The form is that of Carlini et al. 2019, arXiv:1802.08232,
with the coin flips of Steinke et al. 2023, arXiv:2305.08846.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pkgllm.graph.personal_graph import PersonalGraph
from pkgllm.prompts.groups import Completion, Group
from pkgllm.prompts.prompts import PromptWriter
from pkgllm.randomness import stream

_SYLLABLES = (
    *("ba", "ce", "di", "fo", "gu", "ha", "je", "ki", "lo", "mu"),
    *("na", "pe", "ri", "so", "tu", "va", "we", "xi", "yo", "zu"),
)


@dataclass(frozen=True, slots=True)
class Canary:
    """One invented fact."""

    number: int
    client: str
    title: str
    """The desirable completion, if the canary is included."""
    other_title: str
    """The undesirable one."""
    repeats: int
    """Groups that it enters, if it is included."""
    included: bool


def draw_canaries(
    clients: Collection[str],
    count_by_repeats: Mapping[int, int],
    *,
    seed: int,
    taken_titles: Collection[str] = (),
) -> tuple[Canary, ...]:
    """Invent canaries, and flip a fair coin for each.

    Args:
        clients: Who may get one; nobody gets a second before all have one.
        count_by_repeats: How many canaries enter 1 group, 5 groups, and so on.
        seed: Of titles, clients and coins.
        taken_titles: Titles that exist.

    Raises:
        ValueError: If there is no client, or a number is not positive.

    Example:
        >>> drawn = draw_canaries(["anna", "ben"], {1: 2, 5: 1}, seed=0)
        >>> [canary.repeats for canary in drawn]
        [1, 1, 5]
    """
    if not clients:
        raise ValueError("canaries need at least one client, got none")
    if any(min(pair) < 1 for pair in count_by_repeats.items()):
        raise ValueError(f"repeats and counts must be positive, got {dict(count_by_repeats)}")
    generator = stream(seed, "canaries")
    repeats = [each for each, count in sorted(count_by_repeats.items()) for _ in range(count)]
    order = generator.permutation(sorted(clients)).tolist()
    titles = _titles(2 * len(repeats), generator, frozenset(taken_titles))
    coins = generator.random(len(repeats)) < 0.5
    return tuple(
        Canary(
            number,
            order[number % len(order)],
            titles[2 * number],
            titles[2 * number + 1],
            each,
            bool(coins[number]),
        )
        for number, each in enumerate(repeats)
    )


def canary_group(canary: Canary, graph: PersonalGraph, writer: PromptWriter) -> Group:
    """Return the group that a canary enters, and that it is scored by."""
    name = f"canary/{canary.number}"
    completions = (
        Completion(name, writer.completion_ids(canary.title), True, "liked"),
        Completion(f"{name}/other", writer.completion_ids(canary.other_title), False, "uniform"),
    )
    return Group(writer.write(graph), completions, mismatched=completions)


def inserted_groups(
    canaries: Sequence[Canary], graph: PersonalGraph, writer: PromptWriter
) -> tuple[Group, ...]:
    """Return what is added to a client's groups, each canary's as often as it is repeated."""
    return tuple(
        group
        for canary in canaries
        for group in (canary_group(canary, graph, writer),) * canary.repeats
    )


def _titles(count: int, generator: np.random.Generator, taken: frozenset[str]) -> list[str]:
    titles: dict[str, None] = {}
    while len(titles) < count:
        words = ["".join(generator.choice(_SYLLABLES, 3).tolist()).capitalize() for _ in range(2)]
        title = f"{' '.join(words)} ({generator.integers(1950, 2020)})"
        if title not in taken:
            titles[title] = None
    return list(titles)
