"""Documents as JSON: every number of a table as it is, not as it is printed."""

from typing import Any

from pkgllm.report.document import Cell, Document, Figure, Paragraph, Table


def json_document(document: Document) -> dict[str, Any]:
    """Return a document as objects that ``json`` writes.

    A block has a ``kind``. A cell has its ``text`` and, where it writes a number, ``value`` and
    perhaps ``low`` and ``high``.
    """
    blocks = [block for block in document.blocks if not _for_terminals(block)]
    return {
        "title": document.title,
        "blocks": [_block(block) for block in blocks],
        "notes": list(document.notes),
    }


def _for_terminals(block: object) -> bool:
    return isinstance(block, Table) and block.place == "terminal"


def _block(block: Table | Paragraph | Figure | Document) -> dict[str, Any]:
    match block:
        case Table():
            return {
                "kind": "table",
                "title": block.title,
                "columns": [column.heading for column in block.columns],
                "rows": [[_cell(cell) for cell in row] for row in block.rows],
            }
        case Paragraph():
            return {"kind": "paragraph", "text": block.text, "points": list(block.points)}
        case Figure():
            return {"kind": "figure", "caption": block.caption, "file": block.file}
        case Document():
            return {"kind": "section", **json_document(block)}


def _cell(cell: Cell) -> dict[str, Any]:
    numbers = {"value": cell.value, "low": cell.low, "high": cell.high}
    made = {"text": cell.text, **{key: v for key, v in numbers.items() if v is not None}}
    return {**made, "details": list(cell.details)} if cell.details else made
