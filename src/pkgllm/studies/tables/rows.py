"""Run every row of a table, each with every seed, in a folder of its own."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from pkgllm.config.results_table import Row
from pkgllm.config.table_plan import TablePlan
from pkgllm.files import cannot
from pkgllm.interrupts import after_this_round
from pkgllm.runs.folder import RunFolder
from pkgllm.studies.runs import PlannedRun

ROWS, TUNING = "rows", "tuning"
"""Folders of the rows' runs and of those that chose their settings, in that of the table."""


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
) -> tuple[PlannedRun, ...]:
    """Return every run of a table, seed by seed, so that one seed is whole before the next begins.

    Args:
        plan: The table.
        winners: The chosen setting of each row, by name.
        seeds: Of the runs.
    """
    return tuple(
        PlannedRun(str(row_folder(row, seed)), plan.config(row, winners, seed=seed))
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
