"""Documents in a terminal, by rich."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rich import box
from rich.console import RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from pkgllm.report.document import Cell, Document, Figure, Paragraph, Table
from pkgllm.terminal import PrintableConsole


def show(document: Document, files: Mapping[str, Path] | None = None) -> None:
    """Print a document on the output stream, then where the files are that hold more."""
    console = PrintableConsole()
    for renderable in renderables(document, console.width):
        # Rich would cut a line of text that is wider than the terminal.
        console.print(renderable, highlight=False)
    if files:
        console.print()
        width = max(map(len, files)) + 1
        for label, path in files.items():
            line = Text(f"{f'{label}:':{width}} {path}")
            console.print(line, soft_wrap=True)


def renderables(document: Document, width: int) -> Iterator[RenderableType]:
    """Yield what rich prints of a document.

    Args:
        document: What is shown; tables for pages only, and figures, are left out.
        width: Columns of the terminal; where it is too narrow, the ends of an interval stand below
            each other.
    """
    if document.title:
        yield Text(document.title, style="bold")
    for block in document.blocks:
        match block:
            case Table():
                if block.place != "page":
                    yield _table(block, width)
            case Paragraph():
                yield Text("\n".join((block.text, *(f"- {point}" for point in block.points), "")))
            case Document():
                yield ""
                yield from renderables(block, width)
            case Figure():
                pass
    if document.notes:
        notes = RichTable.grid(padding=(0, 1, 0, 0))
        for line in document.notes:
            notes.add_row("-", Text(line))
        yield ""
        yield notes


def _table(table: Table, width: int) -> RichTable:
    made = RichTable(
        title=f"\n{table.title}" if table.title else None,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=0 if table.title else (0, 1, 0, 0),
    )
    headings = [column.heading for column in table.columns]
    if table.compact:
        headings = [heading.replace(" ", "\n") for heading in headings]
    for column, heading in zip(table.columns, headings, strict=True):
        made.add_column(
            Text(heading),
            justify="right" if column.right else "left",
            overflow="fold",
            no_wrap=not column.wrap,
        )
    rows = [[_text(cell, ", ", table) for cell in row] for row in table.rows]
    if not table.compact and _width(headings, rows) > width:
        rows = [[_text(cell, ",\n ", table) for cell in row] for row in table.rows]
    for row in rows:
        made.add_row(*row)
    return made


def _text(cell: Cell, between: str, table: Table) -> Text:
    """Write a value above its interval, digits below digits."""
    text = Text(cell.text, style="bold red" if cell.alarm else "")
    if cell.ends and not table.compact:
        text = Text.assemble(f" {cell.text}\n", (f"[{between.join(cell.ends)}]", "dim"))
    for line in cell.details:
        text.append(f"\n  {line}", style="dim")
    return text


def _width(headings: Sequence[str], rows: Sequence[Sequence[Text]]) -> int:
    """Return the columns that rows take in a terminal, one of them free between two cells."""
    cells = zip(headings, *([text.plain for text in row] for row in rows), strict=True)
    widths = [max(len(line) for cell in column for line in cell.split("\n")) for column in cells]
    return sum(widths) + len(widths) - 1
