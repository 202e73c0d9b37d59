"""Documents as LaTeX; tables need the package ``booktabs``, figures ``graphicx``."""

from collections.abc import Iterator, Sequence

from pkgllm.report.document import Cell, Document, Figure, Paragraph, Table

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
}


def latex(document: Document) -> str:
    r"""Return a document as tables and figures that stand in a text of one's own.

    Notes stand as a list below them. Titles of documents become comments, since only the text
    around them knows which level of heading they have.

    Example:
        >>> from pkgllm.report.document import columns, number
        >>> table = Table("", columns("model", "MRR"), ((Cell("item_knn"), number(0.25)),))
        >>> print(latex(Document("", (table,))))
        \begin{table}
        \centering
        \begin{tabular}{lr}
        \toprule
        model & MRR \\
        \midrule
        item\_knn & .2500 \\
        \bottomrule
        \end{tabular}
        \end{table}
    """
    return "\n".join(_parts(document))


def _parts(document: Document) -> Iterator[str]:
    if document.title:
        yield f"% {' '.join(document.title.split())}"
    for block in document.blocks:
        match block:
            case Table():
                if block.place != "terminal":
                    yield from _table(block)
            case Paragraph():
                yield f"\n{_escaped(block.text)}\n"
                yield from _points(block.points)
            case Figure():
                yield r"\begin{figure}"
                yield r"\centering"
                yield rf"\includegraphics[width=\linewidth]{{{block.file}}}"
                yield rf"\caption{{{_escaped(block.caption)}}}"
                yield r"\end{figure}"
            case Document():
                yield from _parts(block)
    yield from _points(document.notes)


def _table(table: Table) -> Iterator[str]:
    yield r"\begin{table}"
    yield r"\centering"
    if table.title:
        yield rf"\caption{{{_escaped(table.title)}}}"
    yield rf"\begin{{tabular}}{{l{'r' * (len(table.columns) - 1)}}}"
    yield r"\toprule"
    yield _line([_escaped(column.heading) for column in table.columns])
    yield r"\midrule"
    for row in table.rows:
        yield _line([_cell(cell) for cell in row])
    yield r"\bottomrule"
    yield r"\end{tabular}"
    yield r"\end{table}"


def _cell(cell: Cell) -> str:
    below = ([cell.interval] if cell.interval else []) + list(cell.details)
    small = (rf"{{\scriptsize {_escaped(line)}}}" for line in below)
    return " ".join((_escaped(cell.text), *small))


def _line(cells: Sequence[str]) -> str:
    line = " & ".join(cells)
    # After the end of a row LaTeX would read a bracket or a star as its argument.
    return rf"{{}}{line} \\" if line.startswith(("[", "*")) else rf"{line} \\"


def _points(lines: Sequence[str]) -> Iterator[str]:
    if lines:
        yield r"\begin{itemize}"
        yield from (rf"\item{{}} {_escaped(line)}" for line in lines)
        yield r"\end{itemize}"


def _escaped(text: str) -> str:
    return "".join(_SPECIAL.get(letter, letter) for letter in " ".join(text.split()))
