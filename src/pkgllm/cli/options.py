"""Options that several commands share."""

from typing import Annotated

import typer

CONFIG = typer.Option("--config", "-c", help="A file, or the name of one in ./configs or a preset.")
ConfigOption = Annotated[str, CONFIG]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override one key: training.learning_rate=5e-5. Repeatable."),
]
ProcessesOption = Annotated[
    int,
    typer.Option(
        "--processes",
        min=1,
        help="Runs at a time, among which the processors are shared out. Small models are done "
        "sooner by one run on each processor; each takes its own memory.",
    ),
]
# Click 8.5 loses the help that Typer 0.20 has for arguments; the commands' texts explain them.
ConfigArgument = Annotated[str, typer.Argument(metavar="CONFIG", hidden=True)]


def example(command: str) -> str:
    """Return an epilog that is not wrapped, so that it can be copied."""
    return f"\b\nExample:\n  {command}"
