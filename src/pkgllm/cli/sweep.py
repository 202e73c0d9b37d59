"""The command that does all runs of a study."""

from pathlib import Path
from typing import Annotated

import typer

from pkgllm.cli.options import ProcessesOption
from pkgllm.cli.output import echo


def sweep(
    config: Annotated[
        str,
        typer.Option(
            "--config", "-c", help="A study: a file, or the name of one in ./configs or a preset."
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Folder of the runs; runs/STUDY if absent. One that is there is gone on with.",
        ),
    ] = None,
    keep: Annotated[
        int, typer.Option(min=1, help="Checkpoints of each run that stay, the newest ones.")
    ] = 2,
    processes: ProcessesOption = 1,
) -> None:
    """Train and rank every point of a study, with every seed.

    The first Ctrl-C ends after the round in flight and its checkpoint, the second one at once. The
    same command goes on: finished runs are left alone, failed ones are tried again.
    """
    from pkgllm.studies.study_plan import load_study

    plan = load_study(config)

    from pkgllm.report.study import study_document
    from pkgllm.report.to_terminal import show
    from pkgllm.studies.sweep import sweep as do_sweep
    from pkgllm.terminal import show_progress

    result = do_sweep(
        plan,
        output,
        processes=processes,
        keep=keep,
        progress=show_progress(),
        log=lambda line: echo(line, err=True),
    )
    files = {"all tables": result.folder / "summary.md", "as JSON": result.folder / "summary.json"}
    show(study_document(result.summary), files)
    if result.failures:
        raise result.failed()
