"""The commands of ``pkgllm reproduce``."""

import typer

from pkgllm.cli.options import example
from pkgllm.cli.pie import pie
from pkgllm.cli.table2 import table2

reproduce_app = typer.Typer(help="Make the documented tables again.", no_args_is_help=True)


@reproduce_app.callback()
def _root() -> None:
    # Without it typer would make the only command the whole of ``pkgllm reproduce``.
    pass


reproduce_app.command(
    "pie", epilog=example("pkgllm reproduce pie --scale small-world -o runs/pie")
)(pie)
reproduce_app.command(
    "table2", epilog=example("pkgllm reproduce table2 --scale small-world -o runs/table2")
)(table2)
