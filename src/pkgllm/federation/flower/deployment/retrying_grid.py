"""A grid that asks a client again whose SuperNode went away in the middle of a round.

Flower forgets a message once a SuperNode has taken it: where the SuperNode dies, no reply comes, or
an error that says the node is unavailable. What a client answers depends on the message alone, so
asking twice is safe, and the second answer is the first one; but for the noise of DP-SGD, which is
fresh, and which the client charges to its ledger again. A share of local noise is kept and sent
again (:mod:`~pkgllm.federation.client_noise`).
"""

import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import httpx
from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from pkgllm.federation.flower.internals import GONE, Run, set_source
from pkgllm.federation.flower.records import claimed_client, refused_reply, unreadable
from pkgllm.federation.messages import Fault

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Node:
    """A SuperNode that is connected."""

    node_id: int
    client: str
    """Whose it is."""
    life: str
    """Differs each time that it connects anew."""


class RetryingGrid(Grid):
    """Sends a message again when its client was away and is back, until time is over.

    A client is asked once in each life of its node, and never again after an answer, be it a
    failure of its own. Towards the server a client keeps the id of the first node that it had.
    A reply that cannot be decoded, or that claims to be of another client than the key says,
    becomes an error of its sender.
    """

    def __init__(
        self, grid: Grid, nodes: Callable[[], Sequence[Node]], *, poll_seconds: float = 1.0
    ) -> None:
        self._grid = grid
        self._nodes = nodes
        self._poll_seconds = poll_seconds
        self._client_by_first_id: dict[int, str] = {}

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
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> list[int]:
        """Return one id for each client that is connected, the same one after a restart."""
        first_id_by_client = {client: first for first, client in self._client_by_first_id.items()}
        for node in self._nodes():
            if node.client not in first_id_by_client:
                first_id_by_client[node.client] = node.node_id
                self._client_by_first_id[node.node_id] = node.client
        connected = {node.client for node in self._nodes()}
        return [first for first, client in self._client_by_first_id.items() if client in connected]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send messages once."""
        return self._grid.push_messages(list(messages))

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies that have come so far."""
        return self._grid.pull_messages(message_ids)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        """Return each client's reply, or none where it stayed away until time was over.

        Args:
            messages: At most one for each client.
            timeout: Seconds for all of them together; for ever when absent.
        """
        question = _Question(
            {message.metadata.dst_node_id: message for message in messages},
            None if timeout is None else time.monotonic() + timeout,
        )
        while True:
            self._send_due(question)
            for message_id in list(question.first_id_by_message):
                self._pull(question, message_id)
            left = question.seconds_left()
            if len(question.replies) == len(question.asked) or left <= 0:
                return [
                    question.replies[first] for first in question.asked if first in question.replies
                ]
            time.sleep(min(self._poll_seconds, left))

    def _send_due(self, question: "_Question") -> None:
        """Send to each client that has not answered and was not asked in this life of its node."""
        nodes = {node.client: node for node in self._nodes()}
        clients = {first: self._client_by_first_id[first] for first in question.asked}
        for first, client in clients.items():
            node = nodes.get(client)
            if node is None or first in question.replies or question.sent_to.get(first) == node:
                continue
            # One by one, because what Flower cannot send it may leave out of the ids it returns.
            sent = [i for i in self._grid.push_messages([question.copy(first, node)]) if i]
            if not sent:
                continue
            if first in question.began:
                logger.warning("client %s went away and is back; it is asked again", client)
            question.began.add(first)
            question.sent_to[first] = node
            question.first_id_by_message[sent[0]] = first

    def _pull(self, question: "_Question", message_id: str) -> None:
        """Take the reply to one message; where Flower cannot decode it, its sender has failed."""
        first = question.first_id_by_message[message_id]
        try:
            # One by one: what one client sent must not take the replies of others with it.
            replies = list(self._grid.pull_messages([message_id]))
        except httpx.HTTPError:
            raise
        except Exception as error:
            logger.debug("the reply of %s:", self._client_by_first_id[first], exc_info=error)
            replies = [refused_reply(question.asked[first], unreadable(error))]
        for reply in replies:
            del question.first_id_by_message[message_id]
            if first not in question.replies:
                self._take(question, first, reply)

    def _take(self, question: "_Question", first: int, reply: Message) -> None:
        if reply.has_error() and reply.error.code in GONE:
            question.sent_to.pop(first, None)
            return
        set_source(reply, first)
        claimed, known = claimed_client(reply), self._client_by_first_id[first]
        if claimed is not None and claimed != known:
            fault = Fault(
                f"the key is that of client {known}, and the reply says client {claimed}; give "
                "each client a key of its own"
            )
            reply = refused_reply(question.asked[first], fault)
            set_source(reply, first)
        question.replies[first] = reply


@dataclass(slots=True)
class _Question:
    """Messages that wait for their replies; clients stand under the first id of their nodes."""

    asked: Mapping[int, Message]
    end: float | None
    began: set[int] = field(default_factory=set)
    sent_to: dict[int, Node] = field(default_factory=dict)
    """Where a message went that may still be answered."""
    first_id_by_message: dict[str, int] = field(default_factory=dict)
    replies: dict[int, Message] = field(default_factory=dict)

    def seconds_left(self) -> float:
        return math.inf if self.end is None else self.end - time.monotonic()

    def copy(self, first: int, node: Node) -> Message:
        """Return a message of its own for a node; Flower takes an equal one for the same."""
        asked = self.asked[first].metadata
        # Nobody is to begin what nobody waits for any more.
        ttl = None if self.end is None else max(self.seconds_left(), 1.0)
        content = self.asked[first].content
        return Message(content, node.node_id, asked.message_type, ttl=ttl, group_id=asked.group_id)
