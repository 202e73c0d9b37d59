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
    from rich.console import Console

    from pkgllm.pipeline.assistant.pie import reproduce_pie
    from pkgllm.report.pie import measure_blocks, pie_remarks, pie_title
    from pkgllm.report.tables import plain_table, remarks_table
    from pkgllm.terminal import show_progress

    folder = output or Path("runs") / f"pie-{scale}"
    found = reproduce_pie(scale, folder, show_progress(), adapter=adapter)
    console = Console()
    console.print(pie_title(found.results), style="bold", highlight=False, markup=False)
    for block in measure_blocks(found.results):
        console.print(plain_table(block))
    console.print()
    console.print(remarks_table(tuple(pie_remarks(found.results))))
    typer.echo(f"\nintervals and differences: {folder / 'pie.md'}")
    typer.echo(f"as JSON:                   {folder / 'pie.json'}")
