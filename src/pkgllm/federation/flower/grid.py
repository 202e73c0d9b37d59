"""Flower's grid inside one process: no Ray, no network; a round's clients train together."""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from flwr.app import Context, Message, MessageType, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from pkgllm.federation.flower.client_app import logged_failure
from pkgllm.federation.flower.internals import (
    RUN_ID,
    SUPERLINK_NODE_ID,
    Run,
    become_server,
    set_message_id,
)
from pkgllm.federation.flower.records import CLIENT_ID


class ClientSide(Protocol):
    """What a grid runs for its clients."""

    @property
    def flower_app(self) -> ClientApp:
        """Answers one message of one client."""
        ...

    def answer(self, messages: Sequence[Message], contexts: Sequence[Context]) -> list[Message]:
        """Return the replies to instructions to train, in order of the messages."""
        ...


class LocalGrid(Grid):
    """Runs clients in this process: those that train together, the others one by one.

    The instructions to train of one push are answered together, in order of client id; every
    other message is answered by the Flower app alone. Each client keeps one Flower ``Context``,
    and so its state, for the life of the grid. An exception that leaves the client side becomes
    an error reply of every client it was to answer for, with the exception's type and the
    client's id; its text is logged and not sent. Ctrl-C is no client's failure and ends the push.

    Args:
        client_side: What the clients run.
        clients: The clients' ids.
        on_message: Called with every message, on its way down and on its way up.

    Raises:
        ValueError: If there is no client, or one twice.
    """

    def __init__(
        self,
        client_side: ClientSide,
        clients: Sequence[str],
        *,
        on_message: Callable[[Message], None] | None = None,
    ) -> None:
        if not clients or len(set(clients)) != len(clients):
            raise ValueError(
                f"clients must be at least one, each once, got {len(clients)} ids, "
                f"{len(set(clients))} of them different"
            )
        self._client_side = client_side
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
        pushed = sorted(messages, key=lambda message: message.metadata.dst_node_id)
        for message in pushed:
            self._num_messages += 1
            set_message_id(message, str(self._num_messages))
        training = [m for m in pushed if m.metadata.message_type == MessageType.TRAIN]
        if training:
            self._run_clients(training, self._client_side.answer)
        for message in pushed:
            if message.metadata.message_type != MessageType.TRAIN:
                self._run_clients([message], self._answer_alone)
        return [message.metadata.message_id for message in pushed]

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Return the replies to these messages, each of them once."""
        replies = (self._replies.pop(message_id, None) for message_id in message_ids)
        return [reply for reply, _ in filter(None, replies)]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        """Run the clients that are addressed and return their replies.

        Args:
            messages: At most one for each client.
            timeout: Seconds that one client may take; the reply of a slower one is dropped.
                Clients stand for devices that work at the same time, so each has its own clock.
                What clients spend together is shared equally among them: one pass over the base
                model holds them all, so no time in it is one client's own, and an equal share is
                the best estimate of what a client would need alone.
        """
        message_ids = self.push_messages(messages)
        if timeout is not None:
            slow = [key for key in message_ids if self._replies[key][1] > timeout]
            self.pull_messages(slow)
        return self.pull_messages(message_ids)

    def _answer_alone(
        self, messages: Sequence[Message], contexts: Sequence[Context]
    ) -> list[Message]:
        app = self._client_side.flower_app
        return [app(message, context) for message, context in zip(messages, contexts, strict=True)]

    def _run_clients(
        self,
        messages: Sequence[Message],
        answer: Callable[[Sequence[Message], Sequence[Context]], list[Message]],
    ) -> None:
        contexts = [self._contexts[message.metadata.dst_node_id] for message in messages]
        for message in messages:
            self._on_message(message)
        started = time.perf_counter()
        try:
            replies = answer(messages, contexts)
        except Exception as error:
            replies = [
                logged_failure(message, str(context.node_config[CLIENT_ID]), error)
                for message, context in zip(messages, contexts, strict=True)
            ]
        seconds = (time.perf_counter() - started) / len(messages)
        for message, reply in zip(messages, replies, strict=True):
            self._on_message(reply)
            self._replies[message.metadata.message_id] = (reply, seconds)
