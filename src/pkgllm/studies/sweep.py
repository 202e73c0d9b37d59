"""All runs of a study, each in a folder of its own."""

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pkgllm.config.study_runs import Plan
from pkgllm.errors import RunError, StoppedError
from pkgllm.files import cannot, write_atomically
from pkgllm.interrupts import after_this_round
from pkgllm.pipeline import train as jobs
from pkgllm.progress import Progress
from pkgllm.report.drawing import check_plots
from pkgllm.runs.folder import RunFolder
from pkgllm.studies.runs import Doing, PlannedRun, check_same_settings, do_runs
from pkgllm.studies.summary import write_summary

logger = logging.getLogger(__name__)

FAILURES = "failures.jsonl"
"""One line for each run that failed and is not finished since: its name and the reason."""


@dataclass(frozen=True, slots=True)
class Swept:
    """What came of a sweep."""

    summary: Mapping[str, Any]
    failures: Mapping[str, str]
    """Reasons, by the name of the run."""


def sweep(
    plan: Plan,
    output: Path,
    progress: Progress,
    tell: Callable[[str], None],
    *,
    keep: int = jobs.KEEP,
    processes: int = 1,
) -> Swept:
    """Do every run of a study that is not finished, then sum all of them up.

    A run that was stopped, killed or failed goes on; one that is finished is left alone. A run that
    fails is written down, and the sweep goes on with the next. The first Ctrl-C or SIGTERM ends the
    sweep after the checkpoint of the run in flight, or after its ranking where it is training no
    more; runs side by side end at once where they are training no more, and are ranked again.

    Args:
        plan: What to do.
        output: Folder of the run folders and the summary; made if absent.
        progress: Is told how far the run in flight is.
        tell: Is told which run begins, and which failed.
        keep: Checkpoints of a run that stay, at least 1.
        processes: Runs at a time.

    Raises:
        ConfigError: If a run folder holds a run of another configuration; all keys are named.
        StoppedError: If somebody asked to stop.
        RunError: If another process works in the folder, or it cannot be read or written.
    """
    if plan.layout is not None:
        check_plots()
    runs = [PlannedRun(run.name, run.config) for run in plan.runs]
    check_same_settings(runs, output, plan.given)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot("make", output, error) from error
    failures = _read_failures(plan, output / FAILURES)
    with RunFolder(output).occupied(), after_this_round(_warn) as stop_asked:
        doing = Doing(progress, tell, stop_asked, keep, processes)
        try:
            for name, reason in do_runs(runs, output, doing):
                if reason:
                    failures[name] = reason
                else:
                    failures.pop(name, None)
                _write_failures(output / FAILURES, failures)
        except StoppedError as error:
            again = f"pkgllm sweep --config {plan.given} --output {output}"
            raise StoppedError(f"{error}; go on with: {again}") from error
        return Swept(write_summary(plan, output, failures), failures)


def failed_runs(swept: Swept, output: Path) -> RunError:
    """Return the error that ends a sweep of which some runs failed."""
    count = len(swept.failures)
    return RunError(
        f"{count} of {len(swept.summary['runs'])} runs failed, {', '.join(swept.failures)}; "
        f"{output / FAILURES} tells why; once that is mended, sweep again to go on with them"
    )


def _warn() -> None:
    logger.warning("stopping after this run; once more stops at once")


def _read_failures(plan: Plan, path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    try:
        records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        reasons = {str(record["run"]): str(record["reason"]) for record in records}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"{path}: cannot be read as lines of run and reason: {error}; take the file away"
        ) from error
    # The study may have had other points then.
    return {run.name: reasons[run.name] for run in plan.runs if run.name in reasons}


def _write_failures(path: Path, failures: Mapping[str, str]) -> None:
    if failures or path.exists():
        lines = (json.dumps({"run": r, "reason": why}) for r, why in failures.items())
        write_atomically(path, "".join(f"{line}\n" for line in lines))
