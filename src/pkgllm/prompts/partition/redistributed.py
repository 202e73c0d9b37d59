"""The partition ``redistributed``: examples are dealt to clients, whoever's they were.

It moves what one person said to another's device. That is possible where one machine holds all, so
only in a simulation, and it is never private.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from pkgllm.prompts.partition.partition import STREAM, LabelCounts, Partition
from pkgllm.randomness import stream
from pkgllm.registry import RunSettings

if TYPE_CHECKING:
    from pkgllm.prompts.groups import Group

EXAMPLES_AT_ONCE = 16_384
"""Examples that are in memory together, unless a single client's are more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Redistributed(Partition):
    """Single examples, dealt at random in equal numbers; moves them between people.

    Only in a simulation, and never private.
    """

    moves_examples: ClassVar[bool] = True

    name: Literal["redistributed"] = "redistributed"

    def problems(self, run: RunSettings) -> Iterator[str]:
        """Yield what needs whole groups, or adapters of single people."""
        if run.objective.needs_pairs:
            yield (
                "partition redistributed needs an objective without pairs, because every group "
                f"holds a single example, and {run.objective.name} compares two labels in a group; "
                "use objective kto or apo_zero"
            )
        if not run.mode.trains_together:
            yield (
                "partition redistributed needs clients that train together, because alone each "
                "would tune its own adapter on other people's examples; use mode federated or "
                "centralized, or partition by_client"
            )

    def assign(
        self,
        groups: "Mapping[str, Sequence[Group]]",
        counts: Mapping[str, LabelCounts],
        seed: int,
    ) -> "Iterator[tuple[str, Sequence[Group]]]":
        """Yield each client with the groups of one example that it was dealt."""
        num_examples = {client: one.examples for client, one in counts.items()}
        yield from redistribute(groups, num_examples, stream(seed, STREAM))


def single_examples(groups: "Sequence[Group]") -> "list[Group]":
    """Return every completion as a group of its own, in order, without mismatched ones."""
    return [
        replace(group, completions=(completion,), mismatched=())
        for group in groups
        for completion in group.completions
    ]


def draw_deal(
    num_examples: int, num_clients: int, generator: np.random.Generator
) -> list[npt.NDArray[np.int64]]:
    """Deal examples to clients in random order; numbers of examples differ by one at most.

    Args:
        num_examples: The examples are numbered from 0.
        num_clients: At least 1.
        generator: Shuffles.

    Returns:
        For each client the numbers of its examples, in the order in which it was dealt them.

    Example:
        >>> from pkgllm.randomness import stream
        >>> [len(hand) for hand in draw_deal(11, 3, stream(0, "deal"))]
        [4, 4, 3]
    """
    return np.array_split(generator.permutation(num_examples), num_clients)


def redistribute(
    natural: "Mapping[str, Sequence[Group]]",
    num_examples: Mapping[str, int],
    generator: np.random.Generator,
    *,
    examples_at_once: int = EXAMPLES_AT_ONCE,
) -> "Iterator[tuple[str, tuple[Group, ...]]]":
    """Yield each client with the groups of one example that it was dealt.

    A prompt stays that of the person who wrote it. The deal is drawn from the numbers of examples
    alone; then the groups are read once for every batch of receiving clients.

    Args:
        natural: Everybody's own groups, read when they are asked for.
        num_examples: Each client's, in the order of ``natural``.
        generator: Shuffles all examples.
        examples_at_once: Bounds what is in memory together.
    """
    from pkgllm.prompts.groups import with_mismatched

    clients = list(natural)
    ends = np.cumsum([num_examples[client] for client in clients])
    hands = draw_deal(int(ends[-1]), len(clients), generator)
    for first, last in _batches([len(hand) for hand in hands], examples_at_once):
        dealt = _collect(natural, ends, np.concatenate(hands[first:last]))
        for client, hand in zip(clients[first:last], hands[first:last], strict=True):
            yield client, with_mismatched([next(dealt) for _ in hand])


def _batches(sizes: Sequence[int], limit: int) -> Iterator[tuple[int, int]]:
    """Cut clients into stretches of at most ``limit`` examples, or of one client."""
    first = 0
    while first < len(sizes):
        last, total = first + 1, sizes[first]
        while last < len(sizes) and total + sizes[last] <= limit:
            total += sizes[last]
            last += 1
        yield first, last
        first = last


def _collect(
    natural: "Mapping[str, Sequence[Group]]",
    ends: npt.NDArray[np.int64],
    numbers: npt.NDArray[np.int64],
) -> "Iterator[Group]":
    """Return the examples with some numbers, in that order; each client is read once."""
    order = np.argsort(numbers)
    bounds = np.searchsorted(numbers, ends, sorter=order)
    by_number: dict[int, Group] = {}
    start = 0
    for client, low, high, end in zip(natural, (0, *bounds[:-1]), bounds, ends, strict=True):
        if low < high:
            examples = single_examples(natural[client])
            for place in order[low:high]:
                by_number[int(place)] = examples[int(numbers[place]) - start]
        start = int(end)
    return (by_number[place] for place in range(len(numbers)))
