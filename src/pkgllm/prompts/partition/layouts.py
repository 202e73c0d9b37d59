"""Layouts that cut a client's groups and move nothing between people.

An example is a completion in its group. A group without completions is dropped, and the mismatched
completions are redone for the groups that are left.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pkgllm.prompts.groups import Group, with_mismatched


@dataclass(frozen=True, slots=True)
class LabelCounts:
    """What a client trains on, in numbers."""

    groups: int
    desirable: int
    undesirable: int

    @property
    def examples(self) -> int:
        """Completions, counted in each group anew."""
        return self.desirable + self.undesirable

    @property
    def undesirable_share(self) -> float:
        """Share of the examples that are undesirable; 0 without examples."""
        return self.undesirable / max(self.examples, 1)


def count_labels(groups: Sequence[Group]) -> LabelCounts:
    """Count a client's groups and examples."""
    labels = [completion.desirable for group in groups for completion in group.completions]
    return LabelCounts(len(groups), sum(labels), len(labels) - sum(labels))


def cut(groups: Sequence[Group], keep: Callable[[int, int], bool]) -> tuple[Group, ...]:
    """Return a client's groups with some of their completions.

    Args:
        groups: All of the client, in order.
        keep: Tells from the index of a group and of a completion in it whether that one stays.
    """
    smaller = [
        replace(
            group,
            completions=tuple(
                completion
                for place, completion in enumerate(group.completions)
                if keep(number, place)
            ),
        )
        for number, group in enumerate(groups)
    ]
    return with_mismatched([group for group in smaller if group.completions])


def paired(groups: Sequence[Group]) -> tuple[Group, ...]:
    """Keep what matched pairs use: as many of each label as the rarer one has, the first ones.

    This is what :class:`~pkgllm.objectives.dpo.Dpo` sees with ``pairs="matched"``, which sets
    the i-th desirable completion of a group against its i-th undesirable one.
    """

    def num_before(number: int, place: int) -> int:
        """Count the completions of the same label that stand before one in its group."""
        completions = groups[number].completions
        label = completions[place].desirable
        return sum(completion.desirable == label for completion in completions[:place])

    rarer = [min(found.desirable, found.undesirable) for found in map(_count_one, groups)]
    return cut(groups, lambda number, place: num_before(number, place) < rarer[number])


def with_label(groups: Sequence[Group], *, desirable: bool) -> tuple[Group, ...]:
    """Keep the completions of one label."""
    return cut(
        groups, lambda number, place: groups[number].completions[place].desirable == desirable
    )


def draw_sides(
    clients: Sequence[str], *, share: float, generator: np.random.Generator
) -> dict[str, bool]:
    """Draw which clients are left with one label.

    Args:
        clients: All that train.
        share: Of them, above 0; at least one client is drawn.
        generator: Decides who.

    Returns:
        By drawn client whether its desirable examples stay: half of them, and the odd one too.

    Example:
        >>> from pkgllm.randomness import stream
        >>> sides = draw_sides(["1", "2", "3", "4", "5"], share=0.6, generator=stream(0, "sides"))
        >>> len(sides), sum(sides.values())
        (3, 2)
    """
    count = max(1, round(share * len(clients)))
    drawn = generator.permutation(len(clients))[:count]
    return {clients[int(index)]: place % 2 == 0 for place, index in enumerate(drawn)}


def _count_one(group: Group) -> LabelCounts:
    return count_labels([group])
