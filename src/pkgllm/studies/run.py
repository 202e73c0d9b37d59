"""Do the runs of a plan that are not finished, one after the other or side by side."""

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pkgllm.errors import PkgllmError, StoppedError
from pkgllm.files import make_folder, write_atomically
from pkgllm.interrupts import after_this_round
from pkgllm.pipeline import train as jobs
from pkgllm.progress import Progress
from pkgllm.runs.folder import RunFolder
from pkgllm.runs.records import RunFailure, read_records
from pkgllm.studies.plan import PlannedRun
from pkgllm.studies.processes import has_begun, run_side_by_side

logger = logging.getLogger(__name__)

FAILURES = "failures.jsonl"
"""One line for each run that failed and is not finished since: its folder and the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Runner:
    """Does runs in a folder that no other process works in, and records which failed."""

    output: Path
    progress: Progress
    """Shows the run in flight; of runs side by side, how many are done."""
    log: Callable[[str], None]
    """Takes a line for each run that begins, is finished already, or fails."""
    keep: int
    """Checkpoints of each run that stay, at least 1."""
    processes: int
    """Runs at a time. Of several, each has a process of its own."""
    again: str
    """What a person does to go on after a stop, for messages."""
    stop_requested: Callable[[], bool]
    failures: dict[str, str]
    """Reasons of the runs that failed and are not finished since, by place."""

    def run(self, runs: Sequence[PlannedRun]) -> None:
        """Do every run that is not finished, and go on with those that were begun.

        A failure is recorded, and the next run is done. A run gives the same files whether it is
        alone or beside others.

        Raises:
            StoppedError: If a stop was asked for; says at which run.
        """
        path = self.output / FAILURES
        try:
            for place, reason in self._outcomes(runs):
                if reason:
                    self.failures[place] = reason
                else:
                    self.failures.pop(place, None)
                if self.failures or path.exists():
                    lines = (json.dumps({"run": r, "reason": w}) for r, w in self.failures.items())
                    write_atomically(path, "".join(f"{line}\n" for line in lines))
        except StoppedError as error:
            raise StoppedError(f"{error}; {self.again}") from error

    def failed(self, runs: Sequence[PlannedRun]) -> dict[str, str]:
        """Return why runs failed, by place, for those of some runs that did."""
        return {run.place: self.failures[run.place] for run in runs if run.place in self.failures}

    def _outcomes(self, runs: Sequence[PlannedRun]) -> Iterator[tuple[str, str]]:
        """Yield the place of each run with why it failed; empty where it is finished."""
        unfinished: dict[str, PlannedRun] = {}
        for number, run in enumerate(runs, start=1):
            label = f"run {number}/{len(runs)}: {run.place}"
            if RunFolder(self.output / run.place).results.exists():
                self.log(f"{label}, finished already")
                yield run.place, ""
            elif self.processes > 1:
                unfinished[label] = run
            else:
                yield run.place, self._run_here(label, run)
        if unfinished:
            yield from run_side_by_side(
                unfinished,
                self.output,
                processes=self.processes,
                keep=self.keep,
                progress=self.progress,
                log=self.log,
                stop_requested=self.stop_requested,
            )

    def _run_here(self, label: str, run: PlannedRun) -> str:
        if self.stop_requested():
            raise StoppedError(f"stopped at {label}")
        self.log(label)
        path = self.output / run.place
        try:
            if has_begun(path):
                jobs.resume(path, self.progress, keep=self.keep)
            else:
                jobs.train(run.config, path, self.progress, keep=self.keep)
        except (StoppedError, KeyboardInterrupt) as error:
            raise StoppedError(f"stopped at {label}") from error
        except PkgllmError as error:
            self.log(f"{label} failed: {error}")
            return str(error)
        return ""


@contextmanager
def open_runner(
    output: Path,
    *,
    again: str,
    progress: Progress,
    log: Callable[[str], None],
    keep: int = jobs.KEEP,
    processes: int = 1,
) -> Iterator[Runner]:
    """Make the folder of a plan, and keep other processes out of it while its runs are done.

    The first Ctrl-C or SIGTERM ends after the checkpoint of the run in flight, or after its ranking
    where it is training no more; runs side by side end at once where they are training no more, and
    are ranked again. For the arguments see :class:`Runner`.

    Raises:
        RunError: If another process works in the folder, or it cannot be made or read.
    """
    make_folder(output, parents=True)
    path = output / FAILURES
    failures = read_records(path, RunFailure) if path.exists() else ()
    with RunFolder(output).occupied(), after_this_round(_warn) as stop_requested:
        yield Runner(
            output=output,
            progress=progress,
            log=log,
            keep=keep,
            processes=processes,
            again=again,
            stop_requested=stop_requested,
            failures={failure.run: failure.reason for _, failure in failures},
        )


def _warn() -> None:
    logger.warning("stopping after this run; once more stops at once")
