"""The command of ``pkgllm reproduce table2``."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from pkgllm.cli.options import ProcessesOption


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
        log=lambda line: typer.echo(line, err=True),
    )
    files = {
        "all tables": result.folder / f"{RESULTS}.md",
        "as JSON": result.folder / f"{RESULTS}.json",
    }
    show(model_table_document(result.summary), files)
    if result.failures:
        raise result.failed()
