"""Reproduce a table: choose the settings, run the rows, write the results."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pkgllm.config.table_plan import TablePlan
from pkgllm.errors import RunError, StoppedError
from pkgllm.progress import Progress
from pkgllm.report.model_table import model_table_document
from pkgllm.report.to_markdown import markdown
from pkgllm.runs.folder import RunFolder
from pkgllm.studies.runs import Doing, Tell, check_same_settings, do_runs, failures_of
from pkgllm.studies.tables.results import table_results
from pkgllm.studies.tables.rows import row_runs, working
from pkgllm.studies.tables.tuning import THIS_TABLE, recorded, tune

RESULTS = "results"
"""Of the files of a table, without their endings."""


def reproduce(
    plan: TablePlan,
    seeds: Sequence[int],
    output: Path,
    progress: Progress,
    tell: Tell,
    *,
    with_tuning: bool = False,
    processes: int = 1,
) -> tuple[dict[str, Any], Mapping[str, str]]:
    """Run every row that is not finished, and write ``results.json`` and ``results.md``.

    The first Ctrl-C or SIGTERM ends after the round or epoch in flight; called again, it goes on.
    After every seed, and where it is stopped, the results of what is finished are written.

    Args:
        plan: The table.
        seeds: Of the runs, at least one.
        output: Folder of the table; made if absent.
        progress: Is told how far the run in flight is.
        tell: Is told which run begins, and which failed.
        with_tuning: Whether settings are chosen anew, rather than taken from the table's file.
        processes: Runs at a time.

    Returns:
        The results, and why runs failed, by their place below ``output``.

    Raises:
        ConfigError: If a folder holds a run of another configuration; all keys are named.
        StoppedError: If somebody asked to stop.
        RunError: If another process works in the folder, it cannot be read or written, or a
            setting could not be tried.
    """
    with working(output) as stop_asked:
        doing = Doing(progress, tell, stop_asked, processes=processes)
        tuned = tune(plan, output, doing) if with_tuning else recorded(plan)
        winners = {row.name: tuned.winner(row) for row in plan.table.rows}
        check_same_settings(row_runs(plan, winners, seeds), output, THIS_TABLE)
        failures: dict[str, str] = {}
        results: dict[str, Any] = {}
        for done, seed in enumerate(seeds, start=1):
            runs = row_runs(plan, winners, [seed])
            try:
                failures |= failures_of(do_runs(runs, output, doing))
            except StoppedError as error:
                raise StoppedError(f"{error}; the same command goes on") from error
            finally:
                results = table_results(plan, tuned, seeds[:done], failures, output)
                folder = RunFolder(output)
                folder.write_json(f"{RESULTS}.json", results)
                folder.write_text(f"{RESULTS}.md", markdown(model_table_document(results)))
        return results, failures


def failed_rows(failures: Mapping[str, str], output: Path) -> RunError:
    """Return the error that ends a table of which some runs failed."""
    told = "; ".join(f"{place}: {reason}" for place, reason in failures.items())
    return RunError(
        f"{output}: {len(failures)} runs failed ({told}); once that is mended, the same command "
        "goes on with them"
    )
