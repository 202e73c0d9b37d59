"""Store the groups of each client as a partition assigns them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pkgllm.errors import DataError
from pkgllm.files import hidden_sibling
from pkgllm.objectives.objective import Objective
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


def drop_unusable(groups: GroupStore, objective: Objective) -> tuple[GroupStore, int, int]:
    """Leave out the groups that an objective cannot learn from, and clients without another.

    Returns:
        What is left, in the same file, and how many groups and clients were left out.

    Raises:
        DataError: If nothing is left.
        RunError: If the file cannot be written.
    """
    usable = {
        client: [objective.learns_from([c.desirable for c in g.completions]) for g in own]
        for client, own in groups.items()
    }
    num_dropped = sum(own.count(False) for own in usable.values())
    if not num_dropped:
        return groups, 0, 0
    if not any(map(any, usable.values())):
        raise DataError(
            f"no client has a group that the objective {objective.name} can learn from: it needs "
            f"{'a desirable and an undesirable' if objective.needs_pairs else 'a desirable'} "
            "completion in one group; set groups.negatives.uniform to 1 or more, or choose another "
            "objective or partition"
        )
    place = hidden_sibling(groups.path)
    try:
        with GroupWriter.create(place) as stored:
            for client, own in groups.items():
                if kept := tuple(
                    g for g, is_usable in zip(own, usable[client], strict=True) if is_usable
                ):
                    stored.add(client, kept)
        place.replace(groups.path)
    finally:
        place.unlink(missing_ok=True)
    left = GroupStore.open(groups.path)
    return left, num_dropped, len(groups) - len(left)


def summary_of(partition: Partition, groups: Mapping[str, tuple[Group, ...]]) -> dict[str, Any]:
    """Return the summary of groups that a partition leaves as they are."""
    counts = _counts(groups)
    return summarise(partition, counts, counts)


def _counts(groups: Mapping[str, tuple[Group, ...]]) -> dict[str, LabelCounts]:
    return {client: count_labels(own) for client, own in groups.items()}
