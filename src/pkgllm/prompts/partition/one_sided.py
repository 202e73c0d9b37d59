"""The partition ``one_sided``: clients who only like, and clients who only dislike."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from annotated_types import Gt, Le

from pkgllm.prompts.partition.partition import STREAM, LabelCounts, Partition
from pkgllm.randomness import stream
from pkgllm.registry import RunSettings

if TYPE_CHECKING:
    from pkgllm.prompts.groups import Group


@dataclass(frozen=True, slots=True, kw_only=True)
class OneSided(Partition):
    """Some clients keep their desirable examples only, and as many their undesirable ones only."""

    name: Literal["one_sided"] = "one_sided"
    one_sided_share: Annotated[float, Gt(0), Le(1)] = 1.0
    """Share of the clients that are left with one label; the others keep all."""

    def problems(self, run: RunSettings) -> Iterator[str]:
        """Yield why an objective cannot learn from one label."""
        if run.objective.needs_pairs:
            yield (
                "partition one_sided needs an objective without pairs, because clients are left "
                f"with one label, and {run.objective.name} compares two labels in a group; use "
                "objective kto or apo_zero"
            )
        elif run.objective.needs_desirable:
            yield (
                "partition one_sided needs an objective that learns from undesirable examples too, "
                "because some clients are left with no others; use objective kto or apo_zero, not "
                f"{run.objective.name}"
            )

    def assign(
        self,
        groups: "Mapping[str, Sequence[Group]]",
        counts: Mapping[str, LabelCounts],
        seed: int,
    ) -> "Iterator[tuple[str, Sequence[Group]]]":
        """Yield each client with its own groups, or with one label of them."""
        from pkgllm.prompts.partition.cuts import with_label

        sides = draw_sides(list(groups), share=self.one_sided_share, generator=stream(seed, STREAM))
        for client, own in groups.items():
            side = sides.get(client)
            yield client, own if side is None else with_label(own, desirable=side)


def draw_sides(
    clients: Sequence[str], *, share: float, generator: np.random.Generator
) -> dict[str, bool]:
    """Draw which clients are left with one label, at least one of them.

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
