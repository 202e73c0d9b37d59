import signal
import time
from collections.abc import Sequence

import pytest
from flwr.app import ConfigRecord, Context, Message, MessageType, RecordDict
from flwr.clientapp import ClientApp

from helpers.quadratic_clients import SECRET, serialised
from pkgllm.federation.flower.grid import LocalGrid


class CountingClients:
    """Counts its messages in each client's own state; ids say what else a client does.

    ``raises`` raises, ``stopped`` is where somebody presses Ctrl-C, ``slow`` takes 0.4 seconds.
    """

    def __init__(self) -> None:
        self.ran: list[list[str]] = []
        """The clients of each call."""
        self.flower_app = ClientApp()
        self.flower_app.query()(self._count)

    def answer(self, messages: Sequence[Message], contexts: Sequence[Context]) -> list[Message]:
        self.ran.append([])
        return list(map(self._behave, messages, contexts))

    def _count(self, message: Message, context: Context) -> Message:
        self.ran.append([])
        return self._behave(message, context)

    def _behave(self, message: Message, context: Context) -> Message:
        client = str(context.node_config["client-id"])
        self.ran[-1].append(client)
        if client == "raises":
            raise RuntimeError(SECRET)
        if client == "stopped":
            signal.raise_signal(signal.SIGINT)
        if client == "slow":
            time.sleep(0.4)
        before = context.state.config_records.get("count", ConfigRecord({"n": 0}))
        context.state["count"] = ConfigRecord({"n": int(str(before["n"])) + 1})
        return Message(RecordDict({"count": context.state["count"]}), reply_to=message)


def messages(
    grid: LocalGrid, clients: Sequence[str], message_type: str = MessageType.TRAIN
) -> list[Message]:
    return [
        grid.create_message(RecordDict(), message_type, grid.node_ids[client], "1")
        for client in clients
    ]


def count(reply: Message) -> object:
    return reply.content.config_records["count"]["n"]


def senders(replies: Sequence[Message]) -> list[int]:
    return [reply.metadata.src_node_id for reply in replies]


def test_clients_train_together_in_order_and_keep_their_own_state() -> None:
    side = CountingClients()
    grid = LocalGrid(side, ["c", "a", "b"])
    assert list(grid.node_ids) == ["a", "b", "c"]
    assert list(grid.node_ids.values()) == grid.get_node_ids() == sorted(grid.get_node_ids())
    grid.send_and_receive(messages(grid, ["c", "a"]))
    replies = grid.send_and_receive(messages(grid, ["c", "b", "a"]))
    assert side.ran == [["a", "c"], ["a", "b", "c"]]
    assert [count(reply) for reply in replies] == [2, 1, 2]
    assert senders(replies) == grid.get_node_ids()


def test_other_messages_are_answered_one_by_one_in_order() -> None:
    side = CountingClients()
    grid = LocalGrid(side, ["c", "a", "b"])
    replies = grid.send_and_receive(messages(grid, ["c", "a"], MessageType.QUERY))
    assert side.ran == [["a"], ["c"]]
    assert [count(reply) for reply in replies] == [1, 1]


def test_a_push_of_both_kinds_trains_together_and_replies_in_order_of_client() -> None:
    side = CountingClients()
    grid = LocalGrid(side, ["a", "b", "c", "d"])
    mixed = [
        *messages(grid, ["d", "b"]),
        *messages(grid, ["c", "a"], MessageType.QUERY),
    ]
    replies = grid.send_and_receive(mixed)
    assert side.ran == [["b", "d"], ["a"], ["c"]]
    assert senders(replies) == grid.get_node_ids()
    assert [reply.metadata.message_type for reply in replies] == ["query", "train"] * 2


def test_replies_are_pulled_once_and_point_to_their_message() -> None:
    grid = LocalGrid(CountingClients(), ["a", "b"])
    first, second = grid.push_messages(messages(grid, ["a", "b"]))
    (reply,) = grid.pull_messages([second])
    assert reply.metadata.reply_to_message_id == second
    assert reply.metadata.src_node_id == grid.node_ids["b"]
    assert [r.metadata.reply_to_message_id for r in grid.pull_messages([first, second])] == [first]


def test_every_message_is_seen_down_and_up() -> None:
    seen: list[Message] = []
    grid = LocalGrid(CountingClients(), ["a", "b"], on_message=seen.append)
    down = messages(grid, ["b", "a"])
    up = grid.send_and_receive(down)
    assert seen == [down[1], down[0], *up]


def test_an_exception_fails_all_that_train_together_without_its_text(
    caplog: pytest.LogCaptureFixture,
) -> None:
    seen: list[Message] = []
    grid = LocalGrid(CountingClients(), ["a", "raises", "z"], on_message=seen.append)
    asked = [*messages(grid, ["a", "raises"]), *messages(grid, ["z"], MessageType.QUERY)]
    first, second, apart = grid.send_and_receive(asked)
    assert first.error.reason == "client a raised RuntimeError"
    assert second.error.reason == "client raises raised RuntimeError"
    assert count(apart) == 1
    assert len(seen) == 6
    assert not any(SECRET.encode() in serialised(message) for message in seen)
    assert f"client a failed: RuntimeError: {SECRET}" in caplog.text


def test_an_exception_over_another_message_fails_its_client_alone() -> None:
    grid = LocalGrid(CountingClients(), ["a", "raises", "z"])
    replies = grid.send_and_receive(messages(grid, ["a", "raises", "z"], MessageType.QUERY))
    assert [reply.has_error() for reply in replies] == [False, True, False]
    assert replies[1].error.reason == "client raises raised RuntimeError"


def test_a_kind_of_message_that_the_app_does_not_know_fails_the_client() -> None:
    grid = LocalGrid(CountingClients(), ["a"])
    (reply,) = grid.send_and_receive(messages(grid, ["a"], MessageType.EVALUATE))
    assert reply.error.reason == "client a raised ValueError"


@pytest.mark.parametrize("message_type", [MessageType.TRAIN, MessageType.QUERY])
def test_ctrl_c_ends_the_push_at_once_and_nobody_answers(message_type: str) -> None:
    side, seen = CountingClients(), list[Message]()
    grid = LocalGrid(side, ["a", "stopped", "z"], on_message=seen.append)
    with pytest.raises(KeyboardInterrupt):
        grid.push_messages(messages(grid, ["stopped", "z"], message_type))
    assert side.ran == [["stopped"]]
    assert {message.metadata.src_node_id for message in seen}.isdisjoint(grid.get_node_ids())


def test_a_client_alone_and_slower_than_the_timeout_does_not_answer_nor_holds_others_up() -> None:
    side = CountingClients()
    grid = LocalGrid(side, ["a", "slow", "z"])
    asked = messages(grid, ["a", "slow", "z"], MessageType.QUERY)
    replies = grid.send_and_receive(asked, timeout=0.3)
    assert senders(replies) == [grid.node_ids["a"], grid.node_ids["z"]]
    assert side.ran == [["a"], ["slow"], ["z"]]


def test_clients_that_train_together_share_their_seconds_equally() -> None:
    clients = ["slow", *(f"p{number:02}" for number in range(15))]
    grid = LocalGrid(CountingClients(), clients)
    # All sixteen take 0.4 seconds, so 0.025 each.
    assert grid.send_and_receive(messages(grid, clients), timeout=0.02) == []
    assert len(grid.send_and_receive(messages(grid, clients), timeout=0.35)) == len(clients)
    assert grid.send_and_receive(messages(grid, ["slow"]), timeout=0.35) == []


@pytest.mark.parametrize("clients", [[], ["a", "b", "a"]])
def test_no_client_or_one_twice_is_refused(clients: list[str]) -> None:
    with pytest.raises(ValueError, match=f"got {len(clients)} ids, {len(set(clients))} of them"):
        LocalGrid(CountingClients(), clients)
