"""From a configuration to the groups that clients train on, and the note about them."""

from pathlib import Path
from typing import Any

from pkgllm.config import schema
from pkgllm.corpora.population import Population
from pkgllm.files import hidden_sibling
from pkgllm.pipeline.build import build_groups
from pkgllm.progress import Progress
from pkgllm.prompts.group_store import GroupStore
from pkgllm.prompts.partition.partition import partition_note
from pkgllm.prompts.partition.stored import store_partition, summary_of
from pkgllm.prompts.prompts import PromptWriter
from pkgllm.runs.records import PartitionSummary, read_record

PARTITION = "partition.json"
"""What a run's partition left, in numbers of all clients together; no client's id is in it."""


def partition_groups(
    config: schema.Experiment,
    population: Population,
    writer: PromptWriter,
    path: Path,
    progress: Progress,
) -> tuple[GroupStore, dict[str, Any]]:
    """Build and audit everybody's groups, and store what each client trains on.

    Every prompt is audited for the person who wrote it, before anything is cut or moved. One
    client's groups are in memory at a time; ``redistributed`` holds a fixed number of examples.
    Where an error is raised, no file is left.

    Returns:
        The groups, and what is written as :data:`PARTITION`.

    Raises:
        LeakError: If a prompt holds an item that it asks for or that is held out of its client.
        DataError: If no client has a group, or none is left one.
        RunError: If a file cannot be written.
    """
    if not config.partition.changes_groups:
        store = build_groups(config, population, writer, path, progress)
        return store, summary_of(config.partition, store)
    place = hidden_sibling(path)
    try:
        natural = build_groups(config, population, writer, place, progress)
        with progress.track("partitioning groups", len(natural)) as advance:
            summary = store_partition(config.partition, natural, path, config.seed, advance)
    finally:
        place.unlink(missing_ok=True)
    return GroupStore.open(path), summary


def partition_notes(config: schema.Experiment, run: Path) -> tuple[str, ...]:
    """Return a note on a run's partition where clients do not train on their own groups, whole.

    Raises:
        RunError: If the run folder's :data:`PARTITION` cannot be read.
    """
    if not config.partition.changes_groups:
        return ()
    return (partition_note(config.partition, read_record(run / PARTITION, PartitionSummary)),)
