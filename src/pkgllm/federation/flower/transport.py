"""Flower as transport: instructions and updates as its messages, through any of our grids."""

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Protocol

from flwr.app import ArrayRecord, Message, MessageType, RecordDict

from pkgllm.errors import FederationError
from pkgllm.federation.flower import records
from pkgllm.federation.messages import Delivery, Fault, Instruction
from pkgllm.lm.adapter import AdapterState

logger = logging.getLogger(__name__)


class Grid(Protocol):
    """What of a grid is needed: who is there, and to ask them."""

    def get_node_ids(self) -> Iterable[int]:
        """Return the ids of the connected nodes."""
        ...

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Send messages, at most one to a node, and return the replies that came in time."""
        ...


class FlowerTransport:
    """Reaches clients through a grid of nodes, one for each client.

    Args:
        grid: Of the nodes.
        others_machines: Whether clients are on machines of others; one that does not say who it is
            is left out there. Where all are processes of the run's own, that is an error.
    """

    def __init__(self, grid: Grid, *, others_machines: bool = False) -> None:
        self._grid = grid
        self._others_machines = others_machines
        self._node_by_client: dict[str, int] = {}

    def clients(self, timeout: float) -> Collection[str]:
        """Ask every node which client it is; a runtime may number its nodes anew in each run."""
        messages = [
            Message(RecordDict(), node_id, MessageType.QUERY, group_id="clients")
            for node_id in self._grid.get_node_ids()
        ]
        replies = list(self._grid.send_and_receive(messages, timeout=timeout))
        nodes: dict[str, int] = {}
        faults: list[str] = []
        num_named = 0
        for reply in replies:
            client = records.read_client(reply)
            if isinstance(client, Fault):
                faults.append(client.reason)
                continue
            num_named += 1
            nodes[client] = reply.metadata.src_node_id
        may_be_fewer = self._others_machines and len(nodes) == num_named
        if len(nodes) != len(messages) and not may_be_fewer:
            first = f"; the first error: {faults[0]}" if faults else ""
            raise FederationError(
                f"every node must name one client of its own; {len(messages)} nodes are connected, "
                f"{num_named} answered, with {len(nodes)} different clients; set client-id in the "
                f"configuration of each node{first}"
            )
        if silent := len(messages) - len(replies):
            faults.append(f"{silent} nodes did not say within {timeout:g} s which client they are")
        for fault in faults:
            logger.warning("a client is left out: %s", fault)
        self._node_by_client = nodes
        return nodes.keys()

    def exchange(self, instructions: Mapping[str, Instruction], timeout: float) -> Delivery:
        """See :class:`~pkgllm.federation.messages.Transport`."""
        nodes = {self._node_by_client[client]: client for client in instructions}
        messages = self._messages(instructions)
        received = list(self._grid.send_and_receive(messages, timeout=timeout))
        bytes_up = sum(map(records.num_bytes, received))
        replies = {}
        # A message is let go as soon as its adapter is decoded.
        while received:
            reply = received.pop()
            client = nodes[reply.metadata.src_node_id]
            replies[client] = records.read_update(reply, instructions[client].adapter)
        return Delivery(
            replies=replies, bytes_down=sum(map(records.num_bytes, messages)), bytes_up=bytes_up
        )

    def _messages(self, instructions: Mapping[str, Instruction]) -> Sequence[Message]:
        encoded: dict[int, ArrayRecord] = {}

        def record(tensors: AdapterState) -> ArrayRecord:
            if id(tensors) not in encoded:
                encoded[id(tensors)] = records.to_record(tensors)
            return encoded[id(tensors)]

        return [
            Message(
                records.instruction_content(instruction, record),
                self._node_by_client[client],
                MessageType.TRAIN,
            )
            for client, instruction in instructions.items()
        ]
