"""Store the groups of each client as a partition assigns them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pkgllm.errors import DataError
from pkgllm.prompts.group_store import GroupStore, GroupWriter
from pkgllm.prompts.groups import Group
from pkgllm.prompts.partition.partition import LabelCounts, Partition, count_labels, summarise


def store_partition(
    partition: Partition,
    natural: GroupStore,
    path: Path,
    seed: int,
    after_client: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Write what each client trains on, one client after the other; return the summary.

    Raises:
        DataError: If no client is left a group.
        RunError: If the file cannot be written.
    """
    before = _counts(natural)
    after: dict[str, LabelCounts] = {}
    with GroupWriter.create(path) as stored:
        for client, groups in partition.assign(natural, before, seed):
            if groups:
                stored.add(client, tuple(groups))
                after[client] = count_labels(groups)
            after_client()
        if not after:
            raise DataError(
                f"partition {partition.name} leaves no client with a group, because no group "
                "holds an undesirable completion; set groups.negatives.uniform to 1 or more"
            )
    return summarise(partition, before, after)


def summary_of(partition: Partition, groups: Mapping[str, tuple[Group, ...]]) -> dict[str, Any]:
    """Return the summary of groups that a partition leaves as they are."""
    counts = _counts(groups)
    return summarise(partition, counts, counts)


def _counts(groups: Mapping[str, tuple[Group, ...]]) -> dict[str, LabelCounts]:
    return {client: count_labels(own) for client, own in groups.items()}
