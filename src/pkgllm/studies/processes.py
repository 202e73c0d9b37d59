"""Several runs at a time, each by ``pkgllm train`` in a process of its own."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pkgllm.config.load import dump_config
from pkgllm.errors import StoppedError
from pkgllm.progress import Progress
from pkgllm.studies.plan import PlannedRun

_POLL_SECONDS = 0.1
_PREFIX = "pkgllm: "
"""What the last line of a failed command begins with."""


@dataclass(frozen=True, slots=True)
class _Running:
    label: str
    process: "subprocess.Popen[bytes]"
    errors: Path


def has_begun(path: Path) -> bool:
    """Return whether there is a run to go on with; of one that was killed too early, clean up."""
    if (path / "config.yaml").exists():
        return True
    # A kill may have left a part of the first file.
    for torn in path.glob(".config.yaml.*.tmp"):
        torn.unlink()
    return False


def run_side_by_side(
    runs: Mapping[str, PlannedRun],
    output: Path,
    *,
    processes: int,
    keep: int,
    progress: Progress,
    log: Callable[[str], None],
    stop_requested: Callable[[], bool],
) -> Iterator[tuple[str, str]]:
    """Do runs, several at a time, begun in their order.

    The processors are shared out evenly, unless ``OMP_NUM_THREADS`` is set. A child does not see
    the terminal's Ctrl-C; it is sent SIGTERM once for every time that this process is interrupted.

    Yields:
        The place of a run once it has ended, with why it failed; empty where it is finished.

    Raises:
        StoppedError: If a stop was asked for; says at which run.
    """
    waiting, running = list(runs), list[_Running]()
    threads = max(1, (os.cpu_count() or 1) // processes)
    environment = {"OMP_NUM_THREADS": str(threads), **os.environ}
    stopping = False
    with tempfile.TemporaryDirectory() as scratch, progress.track("runs", len(runs)) as advance:
        try:
            while running or (waiting and not stopping):
                if stop_requested() and not stopping:
                    stopping = True
                    _terminate(running)
                while waiting and len(running) < processes and not stopping:
                    label = waiting.pop(0)
                    log(label)
                    command = _command(runs[label], output, Path(scratch), keep)
                    running.append(_start(label, command, Path(scratch), environment))
                ended = [run for run in running if run.process.poll() is not None]
                for run in ended:
                    running.remove(run)
                    reason = _failure(run)
                    if reason and stopping:
                        waiting.append(run.label)
                        continue
                    advance()
                    if reason:
                        log(f"{run.label} failed: {reason}")
                    yield runs[run.label].place, reason
                if not ended:
                    time.sleep(_POLL_SECONDS)
        except KeyboardInterrupt as error:
            waiting += (run.label for run in running)
            raise StoppedError(f"stopped at {min(waiting, key=list(runs).index)}") from error
        finally:
            # A second signal ends a run at once, rather than after its round in flight.
            for _ in range(2):
                _terminate(running)
                time.sleep(_POLL_SECONDS if running else 0)
            for run in running:
                run.process.wait()
    if waiting:
        raise StoppedError(f"stopped at {min(waiting, key=list(runs).index)}")


def _command(run: PlannedRun, output: Path, scratch: Path, keep: int) -> list[str]:
    path = output / run.place
    if has_begun(path):
        arguments = ["--resume", str(path)]
    else:
        config = scratch / f"{run.place.replace('/', '-')}.yaml"
        config.write_text(dump_config(run.config), encoding="utf-8")
        arguments = ["--config", str(config), "--output", str(path)]
    return [sys.executable, "-m", "pkgllm", "train", *arguments, "--keep", str(keep)]


def _start(
    label: str, command: Sequence[str], scratch: Path, environment: Mapping[str, str]
) -> _Running:
    errors = scratch / f"{len(list(scratch.glob('*.log')))}.log"
    with errors.open("wb") as stderr:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            env=environment,
            start_new_session=True,
        )
    return _Running(label, process, errors)


def _failure(run: _Running) -> str:
    """Return why a process that has ended did not finish its run; empty where it did."""
    if run.process.returncode == 0:
        return ""
    lines = run.errors.read_text(encoding="utf-8", errors="replace").splitlines()
    last = lines[-1] if lines else ""
    if last.startswith(_PREFIX):
        return last.removeprefix(_PREFIX)
    return f"its process ended with status {run.process.returncode}: {last}"


def _terminate(running: Sequence[_Running]) -> None:
    for run in running:
        run.process.send_signal(signal.SIGTERM)
