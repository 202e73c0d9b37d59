"""The commands of ``pkgllm reproduce``."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from pkgllm.cli.options import ProcessesOption, example
from pkgllm.cli.output import echo

reproduce_app = typer.Typer(help="Make the documented tables again.", no_args_is_help=True)


@reproduce_app.command(epilog=example("pkgllm reproduce pie --scale small-world -o runs/pie"))
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


@reproduce_app.command(epilog=example("pkgllm reproduce table2 --scale small-world -o runs/table2"))
def table2(
    scale: Annotated[
        Literal["small-world", "redial-mini", "redial-qwen3-0.6b"],
        typer.Option(help="Which data and which base model."),
    ] = "small-world",
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of every row, from 0.")] = 3,
    tune: Annotated[
        bool,
        typer.Option(
            "--tune",
            help="Choose the settings anew on the validation part, equally many for every row, "
            "instead of those that were chosen before.",
        ),
    ] = False,
    processes: ProcessesOption = 1,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Folder of the runs; runs/table2-SCALE if absent. One that is there is gone on "
            "with.",
        ),
    ] = None,
) -> None:
    """Train and rank every model of the comparison under one protocol.

    The first Ctrl-C ends after the round or epoch in flight and its checkpoint, the second one at
    once. The same command goes on: finished rows are left alone, failed ones are tried again.
    """
    from pkgllm.studies.table_plan import load_table

    plan = load_table(f"tables/table2-{scale}.yaml")

    from pkgllm.report.model_table import model_table_document
    from pkgllm.report.to_terminal import show
    from pkgllm.studies.sweep import reproduce_table
    from pkgllm.studies.table_results import RESULTS
    from pkgllm.terminal import show_progress

    result = reproduce_table(
        plan,
        range(seeds),
        output,
        with_tuning=tune,
        processes=processes,
        progress=show_progress(),
        log=lambda line: echo(line, err=True),
    )
    files = {
        "all tables": result.folder / f"{RESULTS}.md",
        "as JSON": result.folder / f"{RESULTS}.json",
    }
    show(model_table_document(result.summary), files)
    if result.failures:
        raise result.failed()
