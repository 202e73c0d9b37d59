"""The commands of ``pkgllm reproduce``."""

import typer

from pkgllm.cli_options import example
from pkgllm.cli_pie import pie

reproduce_app = typer.Typer(help="Make the documented tables again.", no_args_is_help=True)


@reproduce_app.callback()
def _root() -> None:
    # Without it typer would make the only command the whole of ``pkgllm reproduce``.
    pass


reproduce_app.command(
    "pie", epilog=example("pkgllm reproduce pie --scale small-world -o runs/pie")
)(pie)
