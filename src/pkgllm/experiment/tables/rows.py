"""Run every row of a table, each with every seed, in a folder of its own."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pkgllm.config.differences import differences
from pkgllm.config.load import load_any_config
from pkgllm.config.results_table import Row
from pkgllm.config.schema import AnyExperiment
from pkgllm.config.table_plan import TablePlan
from pkgllm.errors import ConfigError, PkgllmError, StoppedError
from pkgllm.experiment.studies.sweep import do_run
from pkgllm.files import cannot
from pkgllm.interrupts import after_this_round
from pkgllm.progress import Progress
from pkgllm.runs import RunFolder

ROWS, TUNING = "rows", "tuning"
"""Folders of the rows' runs and of those that chose their settings, in that of the table."""

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class RowRun:
    """One run of a table."""

    place: str
    """Its folder below that of the table."""
    config: AnyExperiment


def folder_name(text: str) -> str:
    """Return a name for a folder.

    Example:
        >>> folder_name("FedPKGLLM NoSyn"), folder_name("EASE^R")
        ('fedpkgllm-nosyn', 'ease-r')
    """
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-")


def row_folder(row: Row, seed: int) -> Path:
    """Return where the run of a row lies, below the folder of the table; ``of`` is another's."""
    return Path(ROWS) / folder_name(row.of or row.name) / f"seed{seed}"


def row_runs(
    plan: TablePlan, winners: Mapping[str, str | None], seeds: Sequence[int]
) -> tuple[RowRun, ...]:
    """Return every run of a table, seed by seed, so that one seed is whole before the next begins.

    Args:
        plan: The table.
        winners: The chosen setting of each row, by name.
        seeds: Of the runs.
    """
    return tuple(
        RowRun(str(row_folder(row, seed)), plan.config(row, winners, seed=seed))
        for seed in seeds
        for row in plan.table.rows
        if row.config is not None
    )


@contextmanager
def working(output: Path) -> Iterator[Callable[[], bool]]:
    """Keep other processes out of a table's folder; yield what tells whether a stop is asked for.

    Raises:
        RunError: If another process works in it, or it cannot be made.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot("make", output, error) from error
    with RunFolder(output).occupied(), after_this_round(lambda: None) as stop_asked:
        yield stop_asked


def do_runs(
    runs: Sequence[RowRun],
    output: Path,
    progress: Progress,
    tell: Tell,
    stop_asked: Callable[[], bool],
) -> Mapping[str, str]:
    """Do every run that is not finished, and go on with those that were begun.

    Args:
        runs: What to do.
        output: Folder of the table.
        progress: Is told how far the run in flight is.
        tell: Is told which run begins, and which failed.
        stop_asked: Whether to end after the run in flight.

    Returns:
        Why runs failed, by their place.

    Raises:
        ConfigError: If a folder holds a run of another configuration; all keys are named.
        StoppedError: If somebody asked to stop.
    """
    check_same_settings(runs, output)
    failures: dict[str, str] = {}
    for number, run in enumerate(runs, start=1):
        place, path = f"run {number}/{len(runs)}: {run.place}", output / run.place
        if (path / "results.json").exists():
            tell(f"{place}, finished already")
            continue
        if stop_asked():
            raise StoppedError(f"stopped before {place}; the same command goes on")
        tell(place)
        try:
            do_run(run.config, path, progress)
        except (StoppedError, KeyboardInterrupt) as error:
            raise StoppedError(f"stopped at {place}; the same command goes on") from error
        except PkgllmError as error:
            failures[run.place] = str(error)
            tell(f"{place} failed: {error}")
    return failures


def check_same_settings(runs: Sequence[RowRun], output: Path) -> None:
    """Raise where a folder holds a run of another configuration than the table's.

    Raises:
        ConfigError: If one does; all differing keys are named.
    """
    lines = []
    for run in runs:
        config = output / run.place / "config.yaml"
        if not config.exists():
            continue
        if differing := differences(load_any_config(str(config)), run.config):
            lines.append(
                f"{output / run.place}: must be a run of this table, and differs in "
                f"{'; '.join(differing)}; take it away, or choose another --output"
            )
    if lines:
        raise ConfigError("\n".join(lines))
