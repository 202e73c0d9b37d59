"""A SuperLink's own state, without the network, and nodes that come and go by script."""

from collections.abc import Callable, Sequence

import torch
from flwr.app import ConfigRecord, Error, Message, MessageType, MetricRecord, RecordDict
from flwr.common.constant import ErrorCode
from flwr.supercore.constant import FLWR_IN_MEMORY_DB_NAME, NOOP_FEDERATION_ID, TaskType
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.config_loader import get_federation_manager, get_objectstore_linkstate_factories
from flwr.superlink.grid import InMemoryGrid

from pkgllm.federation.flower.deployment.retrying_grid import Node, RetryingGrid
from pkgllm.federation.flower.deployment.superlink import connected_nodes
from pkgllm.federation.flower.internals import become_server
from pkgllm.federation.flower.records import ARRAYS, METRICS, WEIGHT, to_record

INTERVAL = 1800.0


class SuperLinkState:
    """Flower's link state with one run; each look for nodes plays one event of the script."""

    def __init__(self, clients: Sequence[str]) -> None:
        manager = get_federation_manager(is_simulation=False)
        _, factory = get_objectstore_linkstate_factories(FLWR_IN_MEMORY_DB_NAME, manager)
        self.state = factory.state()
        run_id = self.state.create_run(
            None, None, "hash", {}, NOOP_FEDERATION_ID, None, "aid", TaskType.SERVER_APP
        )
        become_server()
        TaskIdentity.run_id = run_id
        self.flower_grid = InMemoryGrid(factory)
        self.flower_grid.set_run(self.state.get_run_info(run_ids=[run_id])[0])
        self.roster = {client: f"key of {client}".encode() for client in clients}
        self.node_ids = {client: self.register(key) for client, key in self.roster.items()}
        self._script: list[Sequence[Callable[[], object]]] = []
        self.given: list[tuple[str, int]] = []
        """Which client was given which node's message."""
        self.grid = RetryingGrid(self.flower_grid, self._look, poll_seconds=0.01)

    def _look(self) -> tuple[Node, ...]:
        for event in self._script.pop(0) if self._script else ():
            event()
        return connected_nodes(self.flower_grid, self.roster)

    def then(self, *events: Callable[[], object]) -> None:
        """Let events happen at one look; none just passes a look."""
        self._script.append(events)

    def register(self, key: bytes) -> int:
        node_id = self.state.create_node("aid", "name", key, INTERVAL)
        return int(node_id)

    def come(self, *clients: str) -> None:
        for client in clients:
            assert self.state.activate_node(self.node_ids[client], INTERVAL)

    def go(self, client: str) -> None:
        assert self.state.deactivate_node(self.node_ids[client])

    def take(self, client: str) -> list[Message]:
        """Let a client's node take what there is for it, as it does before it computes."""
        node_id = self.node_ids[client]
        taken: list[Message] = self.state.get_message_ins(node_id, limit=None)
        self.given += [(client, node_id)] * len(taken)
        return taken

    def answer(self, client: str, message: Message, *, says: str | None = None) -> None:
        content = RecordDict(
            {
                ARRAYS: to_record({"a": torch.tensor([float(client)])}),
                METRICS: MetricRecord({WEIGHT: 1.0}),
            }
        )
        if message.metadata.message_type == MessageType.QUERY:
            says = says or client
        if says is not None:
            content = RecordDict({"config": ConfigRecord({"client-id": says})})
        self._reply(client, Message(content, reply_to=message))

    def fail(self, client: str, message: Message) -> None:
        error = Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, f"client {client} raised ValueError")
        self._reply(client, Message(error, reply_to=message))

    def _reply(self, client: str, reply: Message) -> None:
        known = reply.metadata.__dict__
        known["_src_node_id"] = self.node_ids[client]
        known["_message_id"] = f"{client} {len(self.given)} {reply.metadata.reply_to_message_id}"
        assert self.state.store_message_res(reply) is not None

    def serve(self, *clients: str) -> None:
        """Let clients take and answer all that there is for them."""
        for client in clients:
            for message in self.take(client):
                self.answer(client, message)

    def ask(self, *clients: str, timeout: float = 5.0) -> list[Message]:
        """Ask clients one thing, through the retrying grid."""
        first_ids = [self.node_ids[client] for client in clients]
        messages = [
            self.grid.create_message(RecordDict(), "train", node_id, "1") for node_id in first_ids
        ]
        return self.grid.send_and_receive(messages, timeout=timeout)
