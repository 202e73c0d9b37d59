"""What commands print, without the control characters that text of others may hold."""

import typer

from pkgllm.printable import printable


def echo(text: str, *, err: bool = False) -> None:
    """Print a line."""
    typer.echo(printable(text), err=err)
