"""Several runs at a time, each by ``pkgllm train`` in a process of its own."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pkgllm.config.load import dump_config
from pkgllm.config.schema import AnyExperiment
from pkgllm.errors import StoppedError
from pkgllm.progress import Progress

_POLL_SECONDS = 0.1
_SAID = "pkgllm: "
"""What a command's last line begins with where it cannot do its work."""


@dataclass(frozen=True, slots=True)
class Child:
    """A run that is to be done, or gone on with."""

    label: str
    """What it is called before a person."""
    place: str
    path: Path
    """Its folder."""
    config: AnyExperiment


@dataclass(slots=True)
class _Running:
    child: Child
    process: "subprocess.Popen[bytes]"
    log: Path


def begun(path: Path) -> bool:
    """Return whether there is a run to go on with; of one that was killed too early, clean up."""
    if (path / "config.yaml").exists():
        return True
    # A kill may have left a part of the first file.
    for torn in path.glob(".config.yaml.*.tmp"):
        torn.unlink()
    return False


def side_by_side(
    children: Sequence[Child],
    *,
    processes: int,
    keep: int,
    progress: Progress,
    tell: Callable[[str], None],
    stop_asked: Callable[[], bool],
) -> Iterator[tuple[str, str]]:
    """Do runs, several at a time, in the given order.

    The processors are shared out evenly, unless ``OMP_NUM_THREADS`` says otherwise. A child does
    not see the terminal's Ctrl-C; it is asked to stop once for every time this process is.

    Args:
        children: The runs.
        processes: At a time.
        keep: Checkpoints of each run that stay.
        progress: Is told how many are done.
        tell: Is told which run begins, and which failed.
        stop_asked: Whether to end every run after its round in flight, and begin no other.

    Yields:
        The place of a run once it is finished, with an empty text, or has failed, with why.

    Raises:
        StoppedError: If somebody asked to stop; says at which run.
    """
    waiting, running = deque(children), list[_Running]()
    # What the environment says holds.
    environment = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // processes)), **os.environ}
    asked = False
    with tempfile.TemporaryDirectory() as scratch, progress.track("runs", len(children)) as advance:
        try:
            while running or (waiting and not asked):
                if stop_asked() and not asked:
                    asked = True
                    _ask(running)
                while waiting and len(running) < processes and not asked:
                    tell(waiting[0].label)
                    running.append(_start(waiting.popleft(), Path(scratch), keep, environment))
                ended = [run for run in running if run.process.poll() is not None]
                for run in ended:
                    running.remove(run)
                    reason = _reason(run)
                    if reason and asked:
                        waiting.append(run.child)
                        continue
                    advance()
                    if reason:
                        tell(f"{run.child.label} failed: {reason}")
                    yield run.child.place, reason
                if not ended:
                    time.sleep(_POLL_SECONDS)
        except KeyboardInterrupt as error:
            left = [*waiting, *(run.child for run in running)]
            raise _stopped(left, children) from error
        finally:
            _end(running)
    if waiting:
        raise _stopped(waiting, children)


def _stopped(left: Iterable[Child], children: Sequence[Child]) -> StoppedError:
    return StoppedError(f"stopped at {min(left, key=children.index).label}")


def _start(child: Child, scratch: Path, keep: int, environment: Mapping[str, str]) -> _Running:
    name = child.place.replace("/", "-")
    if begun(child.path):
        what = ["--resume", str(child.path)]
    else:
        config = scratch / f"{name}.yaml"
        config.write_text(dump_config(child.config), encoding="utf-8")
        what = ["--config", str(config), "--output", str(child.path)]
    command = [sys.executable, "-m", "pkgllm", "train", *what, "--keep", str(keep)]
    log = scratch / f"{name}.log"
    with log.open("wb") as said:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=said,
            env=environment,
            start_new_session=True,
        )
    return _Running(child, process, log)


def _reason(run: _Running) -> str:
    """Return why a process that has ended did not finish its run; empty where it did."""
    if run.process.returncode == 0:
        return ""
    lines = run.log.read_text(encoding="utf-8", errors="replace").splitlines()
    last = lines[-1] if lines else ""
    if last.startswith(_SAID):
        return last.removeprefix(_SAID)
    return f"its process ended with status {run.process.returncode}: {last}"


def _ask(running: Sequence[_Running]) -> None:
    for run in running:
        run.process.send_signal(signal.SIGTERM)


def _end(running: Sequence[_Running]) -> None:
    """End what still runs, at once: to be asked twice is not to wait for the round in flight."""
    for _ in range(2):
        _ask(running)
        time.sleep(_POLL_SECONDS if running else 0)
    for run in running:
        run.process.wait()
