"""Flower's own long-running commands, as children that never outlive the process they belong to."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence

_GRACE_SECONDS = 10.0


def start_flower(
    command: Sequence[str], environment: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start one of Flower's commands; it ends when this process does, however this one ends."""
    return subprocess.Popen(
        [sys.executable, "-m", __name__, str(os.getpid()), *command],
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
    )


def end_flower(process: "subprocess.Popen[bytes]") -> None:
    """Ask a child to end, so that it says goodbye to its peers, and make it end after a while."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_GRACE_SECONDS)
    process.kill()
    process.wait()


def _run(parent: int, command: Sequence[str]) -> None:
    from flwr.supercore.app_utils import start_parent_process_monitor

    start_parent_process_monitor(parent)
    sys.argv = list(command)
    match command[0]:
        case "flower-superlink":
            from flwr.superlink.cli import flower_superlink

            flower_superlink()
        case "flower-supernode":
            from flwr.supernode.cli import flower_supernode

            flower_supernode()
        case other:
            raise ValueError(f"must be flower-superlink or flower-supernode, got {other}")


if __name__ == "__main__":
    _run(int(sys.argv[1]), sys.argv[2:])
