"""Inflated numbers beside honest ones of the same answers, under a heading that says so."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.table import Table

from pkgllm.report.blocks import Block, Cell, number
from pkgllm.report.lists import estimate_blocks
from pkgllm.report.tables import estimate_table, markdown_section, plain_table

_HEADINGS = {
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "mrr": "MRR",
    "hits@1": "Hits@1",
    "hits@3": "Hits@3",
    "hits@10": "Hits@10",
}


def legacy_tables(results: Mapping[str, Any], *, width: int) -> Iterator[Table]:
    """Yield inflated and honest tables for a terminal.

    Args:
        results: As made by ``pkgllm.pipeline.evaluation.legacy.legacy_results``.
        width: Columns of the terminal.
    """
    yield plain_table(_inflated_block(results))
    for block in _honest_blocks(results):
        yield estimate_table(block, width)


def legacy_remarks(results: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what inflates the numbers."""
    found = [
        "These numbers are inflated, and shown only so that the gap to honest ones can be seen.",
        "Answers without a line, or cut off, leave numerator and denominator alike; only the "
        "scored ones count.",
        "A title counts without its last word and anywhere in a line, so other films match; a line "
        "that repeats a match counts again, so recall can exceed 1.",
    ]
    if results["answers_in_prompts"]:
        found.append(
            "The prompts held the answers as liked, so copying is enough; the honest scoring of "
            "these answers measures the leak as well."
        )
    honest = results["honest"]
    found.append(
        "The same answers, scored honestly: a line counts where it names one item of the "
        f"catalogue, lists are cut to {honest['k']}, and every query counts."
    )
    if honest["clients"] > 1:
        found.append("[low, high]: 95 % cluster bootstrap interval by client.")
    return tuple(found)


def markdown_legacy(results: Mapping[str, Any], *, title: str, notes: Sequence[str] = ()) -> str:
    """Return the tables as one Markdown section.

    Args:
        results: As made by ``pkgllm.pipeline.evaluation.legacy.legacy_results``.
        title: The section's heading.
        notes: Lines for the list at its end, after what inflates the numbers.
    """
    blocks = (_inflated_block(results), *_honest_blocks(results))
    return markdown_section(title, blocks, (*legacy_remarks(results), *notes))


def _inflated_block(results: Mapping[str, Any]) -> Block:
    rows = tuple(
        (
            (model, mode),
            (
                Cell(f"{found['scored']:,} of {found['answers']:,}"),
                *(number(found[key]) for key in _HEADINGS),
            ),
        )
        for model, modes in results["inflated"].items()
        for mode, found in modes.items()
    )
    title = "INFLATED. The same answers in the published way"
    return Block(title, ("model", "scored", *_HEADINGS.values()), rows)


def _honest_blocks(results: Mapping[str, Any]) -> Iterator[Block]:
    for block in estimate_blocks(results["honest"]):
        yield Block(f"Honest. {block.title}", block.headings, block.rows)
