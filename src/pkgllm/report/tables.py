"""The results of an evaluation as tables: for the terminal (rich) and as Markdown.

Differences stand against the first model only; the results hold those of every pair.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from pkgllm.report.blocks import (
    METRIC_HEADINGS,
    Block,
    Cell,
    counted,
    in_parts,
    list_block,
    metrics_block,
    overall,
    parts,
    spread_blocks,
)


def terminal_tables(results: Mapping[str, Any], *, width: int) -> Iterator[Table]:
    """Yield the tables of results for a terminal: all clients in full, parts of them in short.

    Args:
        results: As made by ``Evaluation.results``.
        width: Columns of the terminal; where it is too narrow, the ends of an interval stand below
            each other.
    """
    for block in overall(results):
        yield estimate_table(block, width)
    yield plain_table(list_block(results))
    yield _short_table(results)


def estimate_table(block: Block, width: int) -> Table:
    """Return values above their intervals, which take one line where all of them fit so."""
    rows = [
        ["\n".join(label), *(_below(cell, ", ") for cell in cells)] for label, cells in block.rows
    ]
    if _width([block.headings, *rows]) > width:
        rows = [
            ["\n".join(label), *(_below(cell, ",\n ") for cell in cells)]
            for label, cells in block.rows
        ]
    table = _empty_table(block.title, block.headings)
    for label, *written in rows:
        table.add_row(Text(label), *(_dim_below(text) for text in written))
    return table


def _below(cell: Cell, between: str) -> str:
    """Write a value above its interval, digits below digits."""
    return f" {cell.value}\n[{cell.low}{between}{cell.high}]" if cell.low else cell.value


def _dim_below(text: str) -> Text:
    value, *interval = text.splitlines(keepends=True)
    return Text.assemble(value, ("".join(interval), "dim"))


def _width(rows: Sequence[Sequence[str]]) -> int:
    """Return the columns that rows take in a terminal, one of them free between two cells."""
    columns = zip(*rows, strict=True)
    widths = [max(len(line) for cell in column for line in cell.splitlines()) for column in columns]
    return sum(widths) + len(widths) - 1


def plain_table(block: Block) -> Table:
    """Return a block of values without intervals, the words of a heading below each other."""
    table = _empty_table(block.title, [heading.replace(" ", "\n") for heading in block.headings])
    for label, cells in block.rows:
        table.add_row(Text("\n".join(label)), *(cell.value for cell in cells))
    return table


def _short_table(results: Mapping[str, Any]) -> Table:
    """Return the values of every part below each other, without their intervals."""
    headings = ("clients", "model", *METRIC_HEADINGS.values())
    table = _empty_table("In parts, without intervals", headings)
    for name, title, part in parts(results):
        beside = counted(part).split(", ") if name != "macro" else ["mean of the", "clients' own"]
        rows = metrics_block(part, title).rows
        for first, row in zip_longest((name, *beside), rows, fillvalue=None):
            label, cells = row or ((), ())
            table.add_row(first, *map(Text, label), *(cell.value for cell in cells))
        table.add_section()
    return table


def _empty_table(title: str, headings: Sequence[str]) -> Table:
    table = Table(
        title=f"\n{title}",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=0,
    )
    for place, heading in enumerate(headings):
        table.add_column(heading, overflow="fold", no_wrap=place > 0)
    return table


def remarks(results: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what a reader must know beside the numbers: the intervals, failures and ties."""
    found = ["[low, high]: 95 % cluster bootstrap interval by client."]
    if results["clients"] == 1:
        found = ["One client only, so no interval can be given."]
    found += [
        "adj.MRR: 0 for a random order, 1 when every held-out item stands first.",
        "Beyond accuracy: the 10 best items of every client, an empty list where a model failed; "
        "the tail is what stands outside the fewest items that hold 80 % of the training likes.",
    ]
    found += [
        f"{name}: no score for {count} of {results['clients']} clients, whose queries all count as "
        "misses."
        for name, count in results["failures"].items()
        if count
    ]
    found += [
        f"{name}: scores tie; an item shares its rank with {tie:.2f} others on average, and ranks "
        "are the mean of best and worst."
        for name, tie in results["ties"].items()
        if tie > 0
    ]
    return tuple(found)


def remarks_table(lines: Sequence[str]) -> Table:
    """Return remarks as a list for a terminal, each one's further lines below its first."""
    table = Table.grid(padding=(0, 1, 0, 0))
    for line in lines:
        table.add_row("-", Text(line))
    return table


def markdown_table(results: Mapping[str, Any], *, title: str, notes: Sequence[str] = ()) -> str:
    """Return the tables of results as one Markdown section.

    Args:
        results: As made by ``Evaluation.results``.
        title: The section's heading.
        notes: Lines for the list at its end, before the remarks on failures and ties.
    """
    return markdown_section(title, _blocks(results), (*notes, *remarks(results)))


def markdown_section(title: str, blocks: Iterable[Block], notes: Sequence[str]) -> str:
    """Return blocks as one Markdown section.

    Args:
        title: The section's heading.
        blocks: Its tables, each below its title.
        notes: Lines for the list at its end.
    """
    lines = [f"## {title}"]
    for block in blocks:
        lines += ["", f"**{block.title}**", "", _line(block.headings)]
        lines.append(_line(["---"] * len(block.headings)))
        lines += [
            _line([" ".join(label), *(f"{cell.value} {cell.interval}".rstrip() for cell in cells)])
            for label, cells in block.rows
        ]
    lines += ["", *(f"- {note}" for note in notes)]
    return "\n".join(lines) + "\n"


def _blocks(results: Mapping[str, Any]) -> Iterator[Block]:
    yield from overall(results)
    yield list_block(results)
    yield from spread_blocks(results)
    yield from in_parts(results)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
