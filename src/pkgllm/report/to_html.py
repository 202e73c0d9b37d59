"""Documents as HTML, as notebooks show them."""

from collections.abc import Iterator, Sequence
from html import escape

from pkgllm.report.document import Cell, Document, Figure, Paragraph, Table


def html(document: Document, *, level: int = 3) -> str:
    r"""Return a document as one ``section``; all text in it is escaped.

    Args:
        document: What is shown.
        level: Of its heading, 1 to 6; sections in it are a level lower.

    Example:
        >>> html(Document("A & B", (Paragraph("Text."),)))
        '<section>\n<h3>A &amp; B</h3>\n<p>Text.</p>\n</section>'
    """
    return "\n".join(("<section>", *_parts(document, level), "</section>"))


def _parts(document: Document, level: int) -> Iterator[str]:
    if document.title:
        yield f"<h{level}>{escape(document.title)}</h{level}>"
    for block in document.blocks:
        match block:
            case Table():
                if block.place != "terminal":
                    yield from _table(block)
            case Paragraph():
                yield f"<p>{_lines(block.text)}</p>"
                yield from _points(block.points)
            case Figure():
                yield (
                    f'<figure><img src="{escape(block.file)}" alt="">'
                    f"<figcaption>{escape(block.caption)}</figcaption></figure>"
                )
            case Document():
                yield html(block, level=min(level + 1, 6))
    yield from _points(document.notes)


def _table(table: Table) -> Iterator[str]:
    yield "<table>"
    if table.title:
        yield f"<caption>{escape(table.title)}</caption>"
    headings = "".join(f"<th>{_lines(column.heading)}</th>" for column in table.columns)
    yield f"<thead><tr>{headings}</tr></thead>"
    yield "<tbody>"
    for first, *others in table.rows:
        yield f"<tr><th>{_cell(first)}</th>{''.join(f'<td>{_cell(c)}</td>' for c in others)}</tr>"
    yield "</tbody>"
    yield "</table>"


def _cell(cell: Cell) -> str:
    text = f"<strong>{_lines(cell.text)}</strong>" if cell.alarm else _lines(cell.text)
    below = ([cell.interval] if cell.interval else []) + list(cell.details)
    return "<br>".join((text, *(f"<small>{escape(line)}</small>" for line in below)))


def _lines(text: str) -> str:
    return escape(text).replace("\n", "<br>")


def _points(lines: Sequence[str]) -> Iterator[str]:
    if lines:
        yield f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"
