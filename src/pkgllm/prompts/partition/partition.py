"""What every partition says of itself, and what is said about the groups that it leaves."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import TYPE_CHECKING, Any, ClassVar

from pkgllm.registry import Choice

if TYPE_CHECKING:
    from pkgllm.prompts.groups import Group
    from pkgllm.runs.records import PartitionSummary

MOVED = "examples of one person train on another's device"
"""Why a run whose partition moves examples is not private."""

STREAM = "layout"
"""Name of the random streams of partitions; with another name each seed would draw others."""


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


def count_labels(groups: "Sequence[Group]") -> LabelCounts:
    """Count a client's groups and examples."""
    labels = [completion.desirable for group in groups for completion in group.completions]
    return LabelCounts(len(groups), sum(labels), len(labels) - sum(labels))


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition(Choice):
    """Which client trains on which of the examples; an example is a completion in its group."""

    changes_groups: ClassVar[bool] = True
    """Whether a client trains on anything else than its own groups, whole."""
    moves_examples: ClassVar[bool] = False
    """Whether a client trains on what other people said."""

    def assign(
        self,
        groups: "Mapping[str, Sequence[Group]]",
        counts: Mapping[str, LabelCounts],
        seed: int,
    ) -> "Iterator[tuple[str, Sequence[Group]]]":
        """Yield each client with the groups that it trains on, perhaps none: here its own.

        Args:
            groups: Everybody's own groups, read when they are asked for.
            counts: Of the same clients.
            seed: The run's seed.
        """
        yield from groups.items()


def summarise(
    partition: Partition, before: Mapping[str, LabelCounts], after: Mapping[str, LabelCounts]
) -> dict[str, Any]:
    """Return what a partition left, in numbers of all clients together; none is a client's id."""
    shares = [counts.undesirable_share for counts in after.values()]
    parameters = asdict(partition)
    return {
        "name": parameters.pop("name"),
        "parameters": parameters,
        "clients": len(after),
        "clients_dropped": len(before) - len(after),
        "groups": sum(counts.groups for counts in after.values()),
        "desirable": sum(counts.desirable for counts in after.values()),
        "undesirable": sum(counts.undesirable for counts in after.values()),
        "undesirable_share": {"min": min(shares), "median": median(shares), "max": max(shares)},
    }


def partition_note(partition: Partition, summary: "PartitionSummary") -> str:
    """Return a note on a partition from the record of what :func:`summarise` returned."""
    share = summary.undesirable_share
    parameters = ", ".join(f"{key} {value:g}" for key, value in summary.parameters.items())
    note = (
        f"Partition: {summary.name}{f' ({parameters})' if parameters else ''}; "
        f"{summary.clients} clients, {summary.clients_dropped} dropped; "
        f"{summary.groups} groups, {summary.desirable} desirable and "
        f"{summary.undesirable} undesirable examples; a client's share of undesirable ones: "
        f"median {share.median:.2f}, from {share.min:.2f} to {share.max:.2f}."
    )
    return f"{note} Not private: {MOVED}." if partition.moves_examples else note
