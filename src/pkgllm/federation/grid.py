"""Flower's grid inside one process: no Ray, no network, one client after the other."""

import logging
import time
from collections.abc import Callable, Iterable, Sequence

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from pkgllm.federation.flower_internals import (
    RUN_ID,
    SUPERLINK_NODE_ID,
    Run,
    become_server,
    set_message_id,
)
from pkgllm.federation.records import CLIENT_ID, failure_reply

logger = logging.getLogger(__name__)


class LocalGrid(Grid):
    """Runs a ClientApp for every message, in order of client id.

    Each client keeps one Flower ``Context``, and so its state, for the life of the grid. An
    exception that leaves the app becomes an error reply with the exception's type and the
    client's id; its text is logged and not sent.

    Args:
        client_app: The app that every client runs.
        clients: The clients' ids.
        on_message: Called with every message, on its way down and on its way up.

    Raises:
        ValueError: If there is no client, or one twice.
    """

    def __init__(
        self,
        client_app: ClientApp,
        clients: Sequence[str],
        *,
        on_message: Callable[[Message], None] | None = None,
    ) -> None:
        if not clients or len(set(clients)) != len(clients):
            raise ValueError(
                f"clients must be at least one, each once, got {len(clients)} ids, "
                f"{len(set(clients))} of them different"
            )
        self._client_app = client_app
        self._on_message = on_message or (lambda message: None)
        self._contexts = {
            node_id: Context(RUN_ID, node_id, {CLIENT_ID: client}, RecordDict(), {})
            for node_id, client in enumerate(sorted(clients), start=SUPERLINK_NODE_ID + 1)
        }
        self._replies: dict[str, tuple[Message, float]] = {}
        self._num_messages = 0
        self._run = Run.create_empty(RUN_ID)
        become_server()

    @property
    def node_ids(self) -> dict[str, int]:
        """Flower's node id of each client; both are in the same order."""
        return {str(c.node_config[CLIENT_ID]): node_id for node_id, c in self._contexts.items()}

    @property
    def run(self) -> Run:
        """Flower's description of the run."""
        return self._run

    def set_run(self, run: Run) -> None:
        """Take Flower's description of the run."""
        self._run = run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Return a message from the server to one client."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> list[int]:
        """Return the node ids of all clients."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Run the clients that are addressed and keep their replies; return the messages' ids."""
        message_ids = []
        for message in sorted(messages, key=lambda message: message.metadata.dst_node_id):
            self._num_messages += 1
            message_id = str(self._num_messages)
            set_message_id(message, message_id)
            started = time.perf_counter()
            reply = self._reply(message)
            self._replies[message_id] = (reply, time.perf_counter() - started)
            message_ids.append(message_id)
        return message_ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Return the replies to these messages, each of them once."""
        found = (self._replies.pop(message_id, None) for message_id in message_ids)
        return [reply for reply, _ in filter(None, found)]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        """Run the clients that are addressed and return their replies.

        Args:
            messages: At most one for each client.
            timeout: Seconds that one client may take. Clients stand for devices that work at the
                same time, so each has its own clock; the reply of a slower one is dropped.
        """
        message_ids = self.push_messages(messages)
        if timeout is not None:
            slow = [key for key in message_ids if self._replies[key][1] > timeout]
            self.pull_messages(slow)
        return self.pull_messages(message_ids)

    def _reply(self, message: Message) -> Message:
        context = self._contexts[message.metadata.dst_node_id]
        self._on_message(message)
        try:
            reply = self._client_app(message, context)
        except Exception as error:
            client = str(context.node_config[CLIENT_ID])
            logger.warning("client %s failed: %s: %s", client, type(error).__name__, error)
            logger.debug("client %s failed here:", client, exc_info=error)
            reply = failure_reply(message, client, error)
        self._on_message(reply)
        return reply


class CohortGrid(Grid):
    """A view of a grid in which only the cohort is connected, so that a strategy draws no other.

    Args:
        grid: The grid behind.
        node_ids: The cohort's node ids.
    """

    def __init__(self, grid: Grid, node_ids: Sequence[int]) -> None:
        self._grid = grid
        self._node_ids = node_ids

    @property
    def run(self) -> Run:
        """Flower's description of the run."""
        return self._grid.run

    def set_run(self, run: Run) -> None:
        """Take Flower's description of the run."""
        self._grid.set_run(run)

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Return a message from the server to one client."""
        return self._grid.create_message(content, message_type, dst_node_id, group_id, ttl)

    def get_node_ids(self) -> Sequence[int]:
        """Return the node ids of the cohort."""
        return self._node_ids

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send messages through the grid behind."""
        return self._grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return replies from the grid behind."""
        return self._grid.pull_messages(message_ids)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Send through the grid behind and return the replies."""
        return self._grid.send_and_receive(messages, timeout=timeout)
