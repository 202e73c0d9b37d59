"""The grid of Flower's simulation engine, made fit for a server that can be stopped."""

import contextlib
import logging
import re
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from flwr.app import Message
from flwr.serverapp import Grid

from pkgllm.federation.flower.internals import app_error, is_app_error

logger = logging.getLogger(__name__)

_PAUSE_SECONDS = 0.05


class Stopped(Exception):  # noqa: N818 - nothing is wrong: the run was asked to end
    """The server was asked to stop while it waited for clients."""


class SimulationGrid:
    """Waits until all clients are connected, and for replies only until it is stopped.

    Flower starts the server before it connects the clients, and its own waiting ends with the
    timeout alone. What Ray says of an actor that died goes through many lines; here it is one.

    Args:
        grid: Flower's.
        num_clients: How many nodes the engine connects.
        stopped: Set from another thread to end any waiting.
        log: File to which the clients' processes add why they failed; its lines are logged here
            after each sending, as the local runtime logs them.
    """

    def __init__(self, grid: Grid, num_clients: int, stopped: threading.Event, log: Path) -> None:
        self._grid = grid
        self._log, self._log_read = log, 0
        self._num_clients = num_clients
        self._stopped = stopped

    def get_node_ids(self) -> Sequence[int]:
        """Return the node ids of all clients, as soon as all are connected.

        Raises:
            Stopped: If the run ends first.
        """
        while len(node_ids := sorted(self._grid.get_node_ids())) < self._num_clients:
            self._pause()
        return node_ids

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        """Send through Flower's grid and return the replies.

        Args:
            messages: At most one for each client.
            timeout: Seconds from the sending, after which no reply is waited for. Clients wait for
                a free actor within it.

        Raises:
            Stopped: If the run ends first.
        """
        waiting = set(self._grid.push_messages(messages))
        end = None if timeout is None else time.monotonic() + timeout
        replies: list[Message] = []
        while waiting and (end is None or time.monotonic() < end):
            arrived = list(self._grid.pull_messages(waiting))
            waiting -= {reply.metadata.reply_to_message_id for reply in arrived}
            replies += arrived
            if waiting:
                self._pause()
        self._repeat_log()
        for reply in replies:
            if reply.has_error() and not is_app_error(reply.error):
                reply.error = app_error(_in_short(reply.error.reason or ""))
        return replies

    def _repeat_log(self) -> None:
        with contextlib.suppress(FileNotFoundError), self._log.open("rb") as file:
            file.seek(self._log_read)
            for line in file.readlines():
                logger.warning("%s", line.decode(errors="replace").rstrip())
            self._log_read = file.tell()

    def _pause(self) -> None:
        if self._stopped.wait(_PAUSE_SECONDS):
            raise Stopped


def _in_short(reason: str) -> str:
    """Name the exception with which Flower's engine explains a missing reply.

    Example:
        >>> _in_short("<class 'ray.exceptions.ActorDiedError'>:<'The actor died unexpectedly ...'>")
        'no reply through Ray: ActorDiedError'
    """
    named = re.match(r"<class '(?:\w+\.)*([^']+)'>", reason)
    return f"no reply through Ray: {named[1] if named else 'unknown error'}"
