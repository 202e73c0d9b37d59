"""Documents as Markdown."""

from collections.abc import Iterator, Sequence

from pkgllm.report.document import Cell, Document, Figure, Paragraph, Table


def markdown(document: Document, *, level: int = 2) -> str:
    r"""Return a document as one section of Markdown; sections in it are a level lower.

    Example:
        >>> from pkgllm.report.document import columns, number
        >>> table = Table("All", columns("model", "MRR"), ((Cell("a | b"), number(0.25)),))
        >>> print(markdown(Document("Results", (table,), ("A note.",))), end="")
        ## Results
        <BLANKLINE>
        **All**
        <BLANKLINE>
        | model | MRR |
        | --- | --- |
        | a \| b | .2500 |
        <BLANKLINE>
        - A note.
    """
    return "\n\n".join(_parts(document, level)) + "\n"


def _parts(document: Document, level: int) -> Iterator[str]:
    if document.title:
        yield f"{'#' * level} {document.title}"
    for block in document.blocks:
        match block:
            case Table():
                if block.place != "terminal":
                    if block.title:
                        yield f"**{block.title}**"
                    yield _table(block)
            case Paragraph():
                yield block.text
                if block.points:
                    yield _points(block.points)
            case Figure():
                yield f"![{block.caption}]({block.file})"
            case Document():
                yield from _parts(block, level + 1)
    if document.notes:
        yield _points(document.notes)


def _table(table: Table) -> str:
    lines = [
        _line([_escaped(column.heading) for column in table.columns]),
        _line(["---"] * len(table.columns)),
        *(_line([_cell(cell) for cell in row]) for row in table.rows),
    ]
    return "\n".join(lines)


def _cell(cell: Cell) -> str:
    parts = (_escaped(cell.text), cell.interval, *map(_escaped, cell.details))
    return " ".join(filter(None, parts))


def _escaped(text: str) -> str:
    # A bar would end the cell, and a star begin emphasis.
    return " ".join(text.split()).replace("|", "\\|").replace("*", "\\*")


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _points(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
