"""A federation of real processes on this machine, none of which may reach any other."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pkgllm.federation.flower.environment import QUIET_ENVIRONMENT

SOURCE = Path(__file__).parents[2] / "src"

# Runs before anything else in every process, and in every process that those start.
NETWORK_GUARD = """
import os, socket

def _guarded(name):
    original = getattr(socket.socket, name)

    def call(self, *arguments):
        address = arguments[-1]
        near = self.family == socket.AF_UNIX or str(address[0]) in ("127.0.0.1", "::1", "localhost")
        if not near:
            _refuse(f"{name} {address}")
        return original(self, *arguments)

    return call

def _refuse(what):
    with open(os.environ["NETWORK_RECORD"], "a") as file:
        file.write(f"{what}\\n")
    raise OSError(f"the network is out of bounds: {what}")

def _resolve(host, *arguments, **named):
    name = host.decode() if isinstance(host, bytes) else host
    if name not in (None, "", "127.0.0.1", "::1", "localhost", "0.0.0.0", "::"):
        _refuse(f"getaddrinfo {name}")
    return _getaddrinfo(host, *arguments, **named)

for _name in ("connect", "connect_ex", "sendto"):
    setattr(socket.socket, _name, _guarded(_name))
_getaddrinfo = socket.getaddrinfo
socket.getaddrinfo = _resolve
with open(os.environ["NETWORK_RECORD"] + ".guarded", "a") as _file:
    _file.write(f"{os.getpid()}\\n")
"""

# A client that trains in a round, says so, and is never heard of again.
FALLING_CLIENT = """
import sys, time
from pathlib import Path
from pkgllm.training.cohort import LaneTrainer
from pkgllm.training.private_lanes import PrivateLaneTrainer

flag, last_round = Path(sys.argv.pop(1)), int(sys.argv.pop(1))

def falling(train):
    def fall(self, adapters, *, round_num, **terms):
        done = train(self, adapters, round_num=round_num, **terms)
        if round_num == last_round:
            flag.touch()
            time.sleep(600)
        return done

    return fall

for trainer in (LaneTrainer, PrivateLaneTrainer):
    trainer.__call__ = falling(trainer.__call__)
from pkgllm.cli.app import main
main()
"""

# A server that is killed when the answers of a round have come, and nothing is made of them.
FALLING_SERVER = """
import os, signal, sys
from pkgllm.federation.flower.deployment.retrying_grid import RetryingGrid

last_round = int(sys.argv.pop(1))
rounds = 0
send_and_receive = RetryingGrid.send_and_receive

def fall(self, messages, **named):
    global rounds
    replies = send_and_receive(self, messages, **named)
    rounds += any(message.metadata.message_type == "train" for message in messages)
    if rounds == last_round:
        os.kill(os.getpid(), signal.SIGKILL)
    return replies

RetryingGrid.send_and_receive = fall
from pkgllm.cli.app import main
main()
"""


class RealFederation:
    """Starts commands in a folder, each in a group of processes that can be killed as one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.record = folder / "network"
        guard = folder / "guard"
        guard.mkdir()
        (guard / "sitecustomize.py").write_text(NETWORK_GUARD)
        (folder / "falling.py").write_text(FALLING_CLIENT)
        (folder / "falling_server.py").write_text(FALLING_SERVER)
        kept = {
            name: value
            for name, value in os.environ.items()
            if name not in QUIET_ENVIRONMENT and not name.startswith("FLWR_")
        }
        self._environment = {
            **kept,
            "PYTHONPATH": os.pathsep.join((str(guard), str(SOURCE))),
            "NETWORK_RECORD": str(self.record),
            "OMP_NUM_THREADS": "1",
        }
        self._started: list[subprocess.Popen[bytes]] = []

    def start(
        self, log: str, *arguments: str, script: str | None = None
    ) -> "subprocess.Popen[bytes]":
        """Start ``pkgllm`` with arguments, or a script; what it says goes to a file."""
        program = ["-m", "pkgllm"] if script is None else [script]
        with (self.folder / f"{log}.log").open("ab") as file:
            process = subprocess.Popen(
                [sys.executable, *program, *arguments],
                cwd=self.folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        self._started.append(process)
        return process

    def said(self, log: str) -> str:
        """Return what a process said."""
        return (self.folder / f"{log}.log").read_text(errors="replace")

    def wait_for(self, what: Callable[[], bool], seconds: float) -> None:
        """Wait until something holds."""
        end = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < end, f"not within {seconds} s"
            time.sleep(0.2)

    def reached(self) -> str:
        """Return what any process tried to reach beyond this machine."""
        return self.record.read_text() if self.record.exists() else ""

    def end(self) -> None:
        """Kill all that still runs."""
        for process in self._started:
            kill(process)


def kill(process: "subprocess.Popen[bytes]") -> None:
    """Kill a process and all that it started, so that none can say goodbye."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def real_federation(folder: Path) -> Iterator[RealFederation]:
    """A federation whose processes are gone at the end, and whose logs are with any failure."""
    federation = RealFederation(folder)
    try:
        yield federation
    except BaseException as error:
        for path in sorted(folder.glob("*.log")):
            error.add_note(f"--- {path.name}\n{path.read_text(errors='replace')[-3000:]}")
        raise
    finally:
        federation.end()
