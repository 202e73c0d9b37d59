"""The results of an evaluation as tables: for the terminal (rich) and as Markdown."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, zip_longest
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

_HEADINGS = {"hits@1": "Hits@1", "hits@3": "Hits@3", "hits@10": "Hits@10", "mrr": "MRR"}
_ONE_LINE_WIDTH = 118
"""Terminal columns from which a value and its interval fit on one line."""

_Label = tuple[str, ...]
"""A row's name in parts that may stand on lines of their own: a model, or two to compare."""


@dataclass(frozen=True, slots=True)
class _Cell:
    value: str
    interval: str


@dataclass(frozen=True, slots=True)
class _Block:
    """One table in words: a title, the first column's heading, and rows of a name and cells."""

    title: str
    heading: str
    rows: tuple[tuple[_Label, tuple[_Cell, ...]], ...]


def terminal_tables(results: Mapping[str, Any], *, width: int) -> Iterator[Table]:
    """Yield the tables of results for a terminal: all clients in full, parts of them in short.

    Args:
        results: As made by ``Evaluation.results``.
        width: Columns of the terminal; in a narrow one the intervals stand below the values.
    """
    wide = width >= _ONE_LINE_WIDTH
    between, padding = (" ", (0, 1, 0, 0)) if wide else ("\n", (0, 0, 0, 0))
    for block in _overall(results):
        table = _empty_table(block.title, (block.heading,), padding)
        for label, cells in block.rows:
            values = (f"{cell.value}{between}{cell.interval}".rstrip() for cell in cells)
            table.add_row(between.join(label), *values)
        yield table
    yield _short_table(results)


def _short_table(results: Mapping[str, Any]) -> Table:
    """Return the values of every part below each other, without their intervals."""
    table = _empty_table("In parts, without intervals", ("clients", "model"), (0, 1, 0, 0))
    for name, title, part in _parts(results):
        counted = (
            _counted(part).split(", ") if name != "macro" else ["mean of the", "clients' means"]
        )
        rows = _models(part, title).rows
        for beside, row in zip_longest((name, *counted), rows, fillvalue=None):
            label, cells = row or ((), ())
            table.add_row(beside, *label, *(cell.value for cell in cells))
        table.add_section()
    return table


def _empty_table(title: str, headings: Sequence[str], padding: tuple[int, int, int, int]) -> Table:
    table = Table(
        title=f"\n{title}",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=padding,
    )
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for heading in _HEADINGS.values():
        table.add_column(heading, no_wrap=True)
    return table


def remarks(results: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what a reader must know beside the numbers: the intervals, failures and ties."""
    found = ["[low, high]: 95 % cluster bootstrap interval by client."]
    if results["clients"] == 1:
        found = ["One client only, so no interval can be given."]
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
    lines = [f"## {title}"]
    for block in _blocks(results):
        headings = [block.heading, *_HEADINGS.values()]
        lines += ["", f"**{block.title}**", "", _line(headings), _line(["---"] * len(headings))]
        lines += [
            _line([" ".join(label), *(f"{cell.value} {cell.interval}".rstrip() for cell in cells)])
            for label, cells in block.rows
        ]
    lines += ["", *(f"- {note}" for note in (*notes, *remarks(results)))]
    return "\n".join(lines) + "\n"


def _blocks(results: Mapping[str, Any]) -> Iterator[_Block]:
    yield from _overall(results)
    for _, title, part in _parts(results):
        yield _models(part, title)
        if part["paired"]:
            yield _paired(part, f"Paired differences, {title[0].lower()}{title[1:]}")


def _overall(results: Mapping[str, Any]) -> Iterator[_Block]:
    yield _models(results, f"All clients: {_counted(results)}")
    if results["paired"]:
        yield _paired(results, "Paired differences, all clients")


def _parts(results: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Yield name, title and numbers of the parts that hold anybody."""
    for name, title in (("seen", "Clients seen in training"), ("unseen", "Unseen clients")):
        if results[name]["clients"]:
            yield name, f"{title}: {_counted(results[name])}", results[name]
    yield "macro", "Macro: mean over clients of each client's mean", results["macro"]


def _models(part: Mapping[str, Any], title: str) -> _Block:
    rows = tuple(
        ((name,), tuple(_cell(metrics[key], "value") for key in _HEADINGS))
        for name, metrics in part["models"].items()
    )
    return _Block(title, "model", rows)


def _paired(part: Mapping[str, Any], title: str) -> _Block:
    rows = tuple(
        (
            (first, f"- {second}"),
            tuple(
                _cell(part["paired"][f"{first}-{second}"][key], "difference") for key in _HEADINGS
            ),
        )
        for first, second in combinations(part["models"], 2)
    )
    return _Block(title, "difference", rows)


def _cell(found: Mapping[str, float | None], key: str) -> _Cell:
    value = found[key]
    assert value is not None
    sign = "+" if key == "difference" else ""
    if found["low"] is None or found["high"] is None:
        return _Cell(_number(value, sign), "")
    return _Cell(_number(value, sign), f"[{_number(found['low'])}, {_number(found['high'])}]")


def _number(value: float, sign: str = "") -> str:
    """Write four digits after the point and none before it that say nothing: ``.0943``."""
    # Adding 0.0 turns the minus of a rounded zero into nothing.
    text = f"{round(value, 4) + 0.0:{sign}.4f}"
    return text.replace("0.", ".", 1) if abs(value) < 0.99995 else text


def _counted(part: Mapping[str, Any]) -> str:
    clients, queries = part["clients"], part["queries"]
    return (
        f"{clients:,} {'client' if clients == 1 else 'clients'}, "
        f"{queries:,} {'query' if queries == 1 else 'queries'}"
    )


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
