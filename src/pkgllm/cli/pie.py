"""The command that makes the table of people who leave their bubble."""

from pathlib import Path
from typing import Annotated, Literal

import typer


def pie(
    scale: Annotated[
        Literal["small-world", "redial-mini"],
        typer.Option(help="Which data and which base model are trained without --adapter."),
    ] = "small-world",
    adapter: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="Folder of a finished run to use instead of training."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Folder for run, table and plot; runs/pie-SCALE if absent. A run that is there is "
            "gone on with.",
        ),
    ] = None,
) -> None:
    """Recommend to everybody in a bubble under three strategies, and compare.

    Two tiny domains, videos and recipes, are asked with the same model.
    """
    from pkgllm.report.pie import pie_document
    from pkgllm.report.to_terminal import show
    from pkgllm.studies.pie import reproduce_pie
    from pkgllm.terminal import show_progress

    folder = output or Path("runs") / f"pie-{scale}"
    results = reproduce_pie(scale, folder, show_progress(), adapter=adapter)
    files = {"intervals and differences": folder / "pie.md", "as JSON": folder / "pie.json"}
    show(pie_document(results), files)
