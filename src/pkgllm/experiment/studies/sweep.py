"""All runs of a study, one after the other, each in a folder of its own."""

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pkgllm.config.differences import differences
from pkgllm.config.load import load_any_config
from pkgllm.config.schema import AnyExperiment
from pkgllm.config.study_runs import Plan
from pkgllm.errors import ConfigError, PkgllmError, RunError, StoppedError
from pkgllm.experiment import jobs
from pkgllm.experiment.studies.summary import write_summary
from pkgllm.files import cannot, write_atomically
from pkgllm.interrupts import after_this_round
from pkgllm.progress import Progress
from pkgllm.report.drawing import check_plots
from pkgllm.runs import RunFolder

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
) -> Swept:
    """Do every run of a study that is not finished, then sum all of them up.

    A run that was stopped, killed or failed goes on; one that is finished is left alone. A run that
    fails is written down, and the sweep goes on with the next. The first Ctrl-C or SIGTERM ends the
    sweep after the checkpoint of the run in flight, or after its ranking where it is training no
    more.

    Args:
        plan: What to do.
        output: Folder of the run folders and the summary; made if absent.
        progress: Is told how far the run in flight is.
        tell: Is told which run begins, and which failed.
        keep: Checkpoints of a run that stay, at least 1.

    Raises:
        ConfigError: If a run folder holds a run of another configuration; all keys are named.
        StoppedError: If somebody asked to stop.
        RunError: If another process works in the folder, or it cannot be read or written.
    """
    if plan.layout is not None:
        check_plots()
    _check_same_settings(plan, output)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot("make", output, error) from error
    failures = _read_failures(plan, output / FAILURES)
    with RunFolder(output).occupied(), after_this_round(_warn) as stop_asked:
        for number, run in enumerate(plan.runs, start=1):
            place = f"run {number}/{len(plan.runs)}: {run.name}"
            path = output / run.name
            if (path / "results.json").exists():
                tell(f"{place}, finished already")
                failures.pop(run.name, None)
                continue
            if stop_asked():
                raise _stopped(plan, output, place)
            tell(place)
            try:
                do_run(run.config, path, progress, keep=keep)
                failures.pop(run.name, None)
            except StoppedError as error:
                raise _stopped(plan, output, place) from error
            except KeyboardInterrupt as error:
                raise _stopped(plan, output, place) from error
            except PkgllmError as error:
                failures[run.name] = str(error)
                tell(f"{place} failed: {error}")
            _write_failures(output / FAILURES, failures)
        _write_failures(output / FAILURES, failures)
        return Swept(write_summary(plan, output, failures), failures)


def failed_runs(swept: Swept, output: Path) -> RunError:
    """Return the error that ends a sweep of which some runs failed."""
    count = len(swept.failures)
    return RunError(
        f"{count} of {len(swept.summary['runs'])} runs failed, {', '.join(swept.failures)}; "
        f"{output / FAILURES} tells why; once that is mended, sweep again to go on with them"
    )


def do_run(config: AnyExperiment, path: Path, progress: Progress, *, keep: int = jobs.KEEP) -> None:
    """Do the run of a configuration, or go on with it where its folder is there.

    Raises:
        PkgllmError: If it cannot be done.
    """
    if (path / "config.yaml").exists():
        jobs.resume(path, progress, keep=keep)
        return
    # A kill may have left a part of the first file.
    for torn in path.glob(".config.yaml.*.tmp"):
        torn.unlink()
    jobs.train(config, path, progress, keep=keep)


def _check_same_settings(plan: Plan, output: Path) -> None:
    lines = []
    for run in plan.runs:
        config = output / run.name / "config.yaml"
        if config.exists() and (differing := differences(load_any_config(str(config)), run.config)):
            lines.append(
                f"{output / run.name}: must be a run of {plan.given}, and differs in "
                f"{'; '.join(differing)}; take it away, or choose another --output"
            )
    if lines:
        raise ConfigError("\n".join(lines))


def _stopped(plan: Plan, output: Path, place: str) -> StoppedError:
    return StoppedError(
        f"stopped at {place}; go on with: pkgllm sweep --config {plan.given} --output {output}"
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
