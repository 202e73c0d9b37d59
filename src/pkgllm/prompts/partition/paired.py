"""The partition ``paired``: what matched pairs of DPO use, for every objective."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pkgllm.prompts.partition.partition import LabelCounts, Partition, count_labels

if TYPE_CHECKING:
    from pkgllm.prompts.groups import Group


@dataclass(frozen=True, slots=True, kw_only=True)
class Paired(Partition):
    """Each client keeps of its own groups what matched pairs of DPO use."""

    name: Literal["paired"] = "paired"

    def assign(
        self,
        groups: "Mapping[str, Sequence[Group]]",
        counts: Mapping[str, LabelCounts],
        seed: int,
    ) -> "Iterator[tuple[str, Sequence[Group]]]":
        """Yield each client with the completions of its matched pairs."""
        for client, own in groups.items():
            yield client, matched(own)


def matched(groups: "Sequence[Group]") -> "tuple[Group, ...]":
    """Keep what matched pairs use: as many of each label as the rarer one has, the first ones.

    This is what DPO sees with ``pairs="matched"``, which sets the i-th desirable completion of a
    group against its i-th undesirable one.
    """
    from pkgllm.prompts.partition.cuts import cut

    def num_before(number: int, place: int) -> int:
        """Count the completions of the same label that stand before one in its group."""
        completions = groups[number].completions
        label = completions[place].desirable
        return sum(completion.desirable == label for completion in completions[:place])

    counts = [count_labels([group]) for group in groups]
    rarer = [min(one.desirable, one.undesirable) for one in counts]
    return cut(groups, lambda number, place: num_before(number, place) < rarer[number])
