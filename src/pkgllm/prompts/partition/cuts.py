"""Cut a client's groups to some of their completions.

A group without completions is dropped, and the mismatched completions are redone for the groups
that are left.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from pkgllm.prompts.groups import Group, with_mismatched


def cut(groups: Sequence[Group], keep: Callable[[int, int], bool]) -> tuple[Group, ...]:
    """Return a client's groups with some of their completions.

    Args:
        groups: All of the client, in order.
        keep: Decides by the index of a group and of a completion in it whether that one stays.
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


def with_label(groups: Sequence[Group], *, desirable: bool) -> tuple[Group, ...]:
    """Keep the completions of one label."""
    return cut(
        groups, lambda number, place: groups[number].completions[place].desirable == desirable
    )
