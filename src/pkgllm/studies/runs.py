"""Do those of many runs that are not finished, one after the other or side by side."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pkgllm.config.differences import differences
from pkgllm.config.load import load_any_config
from pkgllm.config.schema import AnyExperiment
from pkgllm.errors import ConfigError, PkgllmError, StoppedError
from pkgllm.pipeline import train as jobs
from pkgllm.progress import Progress
from pkgllm.runs.folder import RunFolder
from pkgllm.studies.parallel_runs import Child, begun, side_by_side

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """One run of a study or a table."""

    place: str
    """Its folder below that of the study or table."""
    config: AnyExperiment


@dataclass(frozen=True, slots=True)
class Doing:
    """How runs are done."""

    progress: Progress
    """Is told how far the run in flight is; of runs side by side, how many are done."""
    tell: Tell
    """Is told which run begins, and which failed."""
    stop_asked: Callable[[], bool]
    """Whether to end after the round in flight."""
    keep: int = jobs.KEEP
    """Checkpoints of each run that stay, at least 1."""
    processes: int = 1
    """Runs at a time. Of several, each has a process of its own."""


def do_runs(runs: Sequence[PlannedRun], output: Path, doing: Doing) -> Iterator[tuple[str, str]]:
    """Do every run that is not finished, and go on with those that were begun.

    A run comes to the same whether it is alone or beside others.

    Args:
        runs: What to do.
        output: Folder of the study or table.
        doing: How.

    Yields:
        The place of each run once it is finished, with an empty text, or has failed, with why.

    Raises:
        StoppedError: If somebody asked to stop; says at which run.
    """
    labels = [f"run {number}/{len(runs)}: {run.place}" for number, run in enumerate(runs, start=1)]
    unfinished = []
    for label, run in zip(labels, runs, strict=True):
        path = output / run.place
        if RunFolder(path).results.exists():
            doing.tell(f"{label}, finished already")
            yield run.place, ""
        elif doing.processes > 1:
            unfinished.append(Child(label, run.place, path, run.config))
        else:
            yield run.place, _in_this_process(label, run.config, path, doing)
    if unfinished:
        yield from side_by_side(
            unfinished,
            processes=doing.processes,
            keep=doing.keep,
            progress=doing.progress,
            tell=doing.tell,
            stop_asked=doing.stop_asked,
        )


def check_same_settings(runs: Sequence[PlannedRun], output: Path, whole: str) -> None:
    """Raise where a folder holds a run of another configuration.

    Args:
        runs: What is to be done.
        output: Folder of the study or table.
        whole: What the runs belong to, as a person calls it.

    Raises:
        ConfigError: If one does; all differing keys are named.
    """
    lines = []
    for run in runs:
        path = output / run.place
        config = path / "config.yaml"
        if config.exists() and (differing := differences(load_any_config(str(config)), run.config)):
            lines.append(
                f"{path}: must be a run of {whole}, and differs in {'; '.join(differing)}; take it "
                "away, or choose another --output"
            )
    if lines:
        raise ConfigError("\n".join(lines))


def failures_of(outcomes: Iterator[tuple[str, str]]) -> Mapping[str, str]:
    """Return why runs failed, by their place."""
    return {place: reason for place, reason in outcomes if reason}


def _in_this_process(label: str, config: AnyExperiment, path: Path, doing: Doing) -> str:
    if doing.stop_asked():
        raise StoppedError(f"stopped at {label}")
    doing.tell(label)
    try:
        if begun(path):
            jobs.resume(path, doing.progress, keep=doing.keep)
        else:
            jobs.train(config, path, doing.progress, keep=doing.keep)
    except (StoppedError, KeyboardInterrupt) as error:
        raise StoppedError(f"stopped at {label}") from error
    except PkgllmError as error:
        doing.tell(f"{label} failed: {error}")
        return str(error)
    return ""
