"""Whole studies and tables: every run, then the summary."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pkgllm.errors import RunError
from pkgllm.pipeline import train as jobs
from pkgllm.progress import Progress, Silent
from pkgllm.report.drawing import check_plots
from pkgllm.studies.plan import check_same_settings
from pkgllm.studies.run import FAILURES, open_runner
from pkgllm.studies.study_plan import StudyPlan, load_study
from pkgllm.studies.summarise import write_summary
from pkgllm.studies.table_plan import TablePlan, load_table, read_tuning
from pkgllm.studies.table_results import write_results
from pkgllm.studies.tune import TUNING, trials, tune

logger = logging.getLogger(__name__)

_THIS_TABLE = "this table"


@dataclass(frozen=True, slots=True)
class StudyResult:
    """What a study or a table measured, and where it lies."""

    folder: Path
    summary: Mapping[str, Any]
    """What the folder's ``summary.json`` holds, or ``results.json`` of a table."""
    num_runs: int
    failures: Mapping[str, str]
    """Reasons, by the folder of the run."""

    def failed(self) -> RunError:
        """Return the error that ends a command of which some runs failed."""
        return RunError(
            f"{len(self.failures)} of {self.num_runs} runs failed, {', '.join(self.failures)}; "
            f"{self.folder / FAILURES} says why; once that is mended, the same command goes on "
            "with them"
        )


def sweep(
    study: str | Path | StudyPlan,
    output: str | Path | None = None,
    *,
    processes: int = 1,
    keep: int = jobs.KEEP,
    progress: Progress | None = None,
    log: Callable[[str], None] = logger.info,
) -> StudyResult:
    """Do every run of a study that is not finished, then write its summary.

    A run that was stopped, killed or failed goes on; one that is finished stays as it is. A run
    that fails is recorded, and the sweep goes on with the next.

    Args:
        study: What :func:`~pkgllm.studies.study_plan.load_study` takes or returns.
        output: Folder of the run folders and the summary, made if absent; ``runs/STUDY`` by
            default.
        processes: Runs at a time. Of several, each has a process of its own.
        keep: Checkpoints of each run that stay, at least 1.
        progress: Shows the run in flight; nothing is shown by default.
        log: Takes a line for each run that begins, is finished already, or fails.

    Raises:
        ConfigError: If the study is wrong, or a run folder holds a run of another configuration;
            all problems are named.
        StoppedError: If a stop was asked for.
        RunError: If another process works in the folder, or it cannot be read or written.
    """
    plan = study if isinstance(study, StudyPlan) else load_study(str(study))
    folder = Path(output or f"runs/{plan.name}")
    if plan.layout is not None:
        check_plots()
    check_same_settings(plan.runs, folder, plan.source)
    with open_runner(
        folder,
        again=f"go on with: pkgllm sweep --config {plan.source} --output {folder}",
        progress=progress or Silent(),
        log=log,
        keep=keep,
        processes=processes,
    ) as runner:
        runner.run(plan.runs)
        summary = write_summary(plan, folder, runner.failures)
    return StudyResult(folder, summary, len(plan.runs), runner.failed(plan.runs))


def reproduce_table(
    table: str | Path | TablePlan,
    seeds: Sequence[int],
    output: str | Path | None = None,
    *,
    with_tuning: bool = False,
    processes: int = 1,
    progress: Progress | None = None,
    log: Callable[[str], None] = logger.info,
) -> StudyResult:
    """Do every row's run that is not finished, and write ``results.json`` and ``results.md``.

    The rows of one seed are done before the next begins; after every seed, and after a stop, the
    results of what is finished are written. Settings are those that an earlier ``with_tuning``
    chose in the same folder, else those that are recorded beside the table's file.

    Args:
        table: What :func:`~pkgllm.studies.table_plan.load_table` takes or returns.
        seeds: Of the runs, at least one.
        output: Folder of the table, made if absent; ``runs/TABLE`` by default.
        with_tuning: Whether settings are tuned again.
        processes: As for :func:`sweep`.
        progress: As for :func:`sweep`.
        log: As for :func:`sweep`.

    Raises:
        ConfigError: As for :func:`sweep`.
        StoppedError: If a stop was asked for.
        RunError: As for :func:`sweep`, or if a setting could not be tried.
    """
    plan = table if isinstance(table, TablePlan) else load_table(str(table))
    folder = Path(output or f"runs/{plan.name}")
    if not with_tuning and (tuned := read_tuning(folder / TUNING, plan.table)):
        plan = replace(plan, tuning=tuned)
    with open_runner(
        folder,
        again="the same command goes on",
        progress=progress or Silent(),
        log=log,
        processes=processes,
    ) as runner:
        if with_tuning:
            check_same_settings(trials(plan), folder, _THIS_TABLE)
            plan = replace(plan, tuning=tune(plan, runner))
        runs = plan.runs(seeds)
        check_same_settings(runs, folder, _THIS_TABLE)
        for done, seed in enumerate(seeds, start=1):
            try:
                runner.run([run for run in runs if run.config.seed == seed])
            finally:
                results = write_results(plan, seeds[:done], runner.failures, folder)
    return StudyResult(folder, results, len(runs), runner.failed(runs))
