"""From a configuration to the groups that clients train on, and what is said about them."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from pkgllm.config import schema
from pkgllm.corpora.splits import Population
from pkgllm.errors import DataError, RunError
from pkgllm.files import hidden_sibling
from pkgllm.pipeline.build import build_groups
from pkgllm.pipeline.privacy.statement import MOVED
from pkgllm.progress import Progress
from pkgllm.prompts.group_store import GroupStore, GroupWriter
from pkgllm.prompts.groups import Group
from pkgllm.prompts.partition.label_skew import draw_share, skewed
from pkgllm.prompts.partition.layouts import (
    LabelCounts,
    count_labels,
    draw_sides,
    paired,
    with_label,
)
from pkgllm.prompts.partition.redistribution import redistributed
from pkgllm.prompts.prompts import PromptWriter
from pkgllm.randomness import stream

LAYOUT = "layout.json"
"""What a run's layout left, in numbers of all clients together; nothing in it is a client's id."""


def lay_out_groups(
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

    Args:
        config: The run's configuration.
        population: All clients.
        writer: Writes prompts and completions.
        path: The file to write; its folder must exist.
        progress: Is told how far the work is.

    Returns:
        The groups, and what is written as :data:`LAYOUT`.

    Raises:
        LeakError: If a prompt holds an item that it asks for or that is held out of its client.
        DataError: If no client has a group, or none is left one.
        RunError: If a file cannot be written.
    """
    if config.layout.name == "by_client":
        store = build_groups(config, population, writer, path, progress)
        counts = _count(store)
        return store, _summary(config.layout, counts, counts)
    place = hidden_sibling(path)
    try:
        natural = build_groups(config, population, writer, place, progress)
        before = _count(natural)
        after: dict[str, LabelCounts] = {}
        with (
            GroupWriter.create(path) as stored,
            progress.track("laying out groups", len(natural)) as advance,
        ):
            for client, groups in _laid_out(config, natural, before):
                if groups:
                    stored.add(client, groups)
                    after[client] = count_labels(groups)
                advance()
            if not after:
                raise DataError(
                    f"layout {config.layout.name} leaves no client with a group, because no group "
                    "holds an undesirable completion; set groups.negatives.uniform to 1 or more"
                )
    finally:
        place.unlink(missing_ok=True)
    return GroupStore.open(path), _summary(config.layout, before, after)


def layout_notes(config: schema.Experiment, run: Path) -> tuple[str, ...]:
    """Return a note on a run's layout where it is not the natural one.

    Args:
        config: The run's configuration.
        run: The run folder, which holds :data:`LAYOUT`.

    Raises:
        RunError: If that file cannot be read.
    """
    if config.layout.name == "by_client":
        return ()
    path = run / LAYOUT
    try:
        return (layout_note(json.loads(path.read_text(encoding="utf-8"))),)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path}: must be what training writes: {error}; train again") from error


def layout_note(summary: Mapping[str, Any]) -> str:
    """Return a note on a layout from what :func:`lay_out_groups` returned."""
    share = summary["undesirable_share"]
    named = ", ".join(f"{key} {value:g}" for key, value in summary["parameters"].items())
    note = (
        f"Layout: {summary['name']}{f' ({named})' if named else ''}; {summary['clients']} clients, "
        f"{summary['clients_dropped']} dropped; {summary['groups']} groups, "
        f"{summary['desirable']} desirable and {summary['undesirable']} undesirable examples; a "
        f"client's share of undesirable ones: median {share['median']:.2f}, from "
        f"{share['min']:.2f} to {share['max']:.2f}."
    )
    return f"{note} Not private: {MOVED}." if summary["name"] == "redistributed" else note


def _laid_out(
    config: schema.Experiment, natural: GroupStore, counts: Mapping[str, LabelCounts]
) -> Iterator[tuple[str, tuple[Group, ...]]]:
    match config.layout:
        case schema.Redistributed():
            yield from redistributed(
                natural,
                {client: found.examples for client, found in counts.items()},
                stream(config.seed, "layout"),
            )
        case schema.Paired():
            for client, groups in natural.items():
                yield client, paired(groups)
        case schema.Dirichlet(concentration=concentration):
            mean = _undesirable_share(counts)
            for client, groups in natural.items():
                generator = stream(config.seed, "layout", client)
                share = draw_share(mean, concentration=concentration, generator=generator)
                yield client, skewed(groups, share, generator)
        case schema.OneSided(one_sided_share=share):
            sides = draw_sides(list(natural), share=share, generator=stream(config.seed, "layout"))
            for client, groups in natural.items():
                side = sides.get(client)
                yield client, groups if side is None else with_label(groups, desirable=side)


def _count(groups: Mapping[str, tuple[Group, ...]]) -> dict[str, LabelCounts]:
    return {client: count_labels(own) for client, own in groups.items()}


def _undesirable_share(counts: Mapping[str, LabelCounts]) -> float:
    """Return the share in all examples together.

    Raises:
        DataError: If it is 0 or 1, so that no client could differ from another.
    """
    undesirable = sum(found.undesirable for found in counts.values())
    share = undesirable / sum(found.examples for found in counts.values())
    if not 0 < share < 1:
        raise DataError(
            "layout dirichlet needs desirable and undesirable completions, got one label only; set "
            "groups.negatives.uniform to 1 or more"
        )
    return share


def _summary(
    layout: schema.Layout, before: Mapping[str, LabelCounts], after: Mapping[str, LabelCounts]
) -> dict[str, Any]:
    shares = [found.undesirable_share for found in after.values()]
    return {
        "name": layout.name,
        "parameters": layout.model_dump(exclude={"name"}),
        "clients": len(after),
        "clients_dropped": len(before) - len(after),
        "groups": sum(found.groups for found in after.values()),
        "desirable": sum(found.desirable for found in after.values()),
        "undesirable": sum(found.undesirable for found in after.values()),
        "undesirable_share": {"min": min(shares), "median": median(shares), "max": max(shares)},
    }
