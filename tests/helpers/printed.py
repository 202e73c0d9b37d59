"""Documents as a terminal shows them."""

import io

from rich.console import Console

from pkgllm.report.document import Document
from pkgllm.report.to_terminal import renderables


def printed(document: Document, width: int = 80) -> str:
    console = Console(width=width, file=io.StringIO(), force_terminal=False)
    for renderable in renderables(document, width):
        console.print(renderable, highlight=False)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def lines_of(document: Document, width: int = 140) -> list[str]:
    """Lines that are not empty, without the spaces between columns."""
    lines = (" ".join(line.split()) for line in printed(document, width).splitlines())
    return list(filter(None, lines))
