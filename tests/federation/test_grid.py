import time

import pytest
from flwr.app import ConfigRecord, Context, Message, MessageType, RecordDict
from flwr.clientapp import ClientApp
from quadratic_clients import SECRET, serialised

from pkgllm.federation.flower_internals import Run
from pkgllm.federation.grid import CohortGrid, LocalGrid


def counting_app(ran: list[str]) -> ClientApp:
    """Return an app that counts its messages in the client's own state."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        client = str(context.node_config["client-id"])
        ran.append(client)
        if client == "raises":
            raise RuntimeError(SECRET)
        if client == "slow":
            time.sleep(0.4)
        before = context.state.config_records.get("count", ConfigRecord({"n": 0}))
        context.state["count"] = ConfigRecord({"n": int(str(before["n"])) + 1})
        return Message(RecordDict({"count": context.state["count"]}), reply_to=message)

    return app


def messages(grid: LocalGrid, clients: list[str]) -> list[Message]:
    return [
        grid.create_message(RecordDict(), MessageType.TRAIN, grid.node_ids[client], "1")
        for client in clients
    ]


def count(reply: Message) -> object:
    return reply.content.config_records["count"]["n"]


def test_clients_run_in_order_and_keep_their_own_state() -> None:
    ran: list[str] = []
    grid = LocalGrid(counting_app(ran), ["c", "a", "b"])
    assert list(grid.node_ids) == ["a", "b", "c"]
    assert list(grid.node_ids.values()) == grid.get_node_ids() == sorted(grid.get_node_ids())
    grid.send_and_receive(messages(grid, ["c", "a"]))
    replies = grid.send_and_receive(messages(grid, ["c", "b", "a"]))
    assert ran == ["a", "c", "a", "b", "c"]
    assert [count(reply) for reply in replies] == [2, 1, 2]
    assert [reply.metadata.src_node_id for reply in replies] == grid.get_node_ids()


def test_replies_are_pulled_once_and_point_to_their_message() -> None:
    grid = LocalGrid(counting_app([]), ["a", "b"])
    first, second = grid.push_messages(messages(grid, ["a", "b"]))
    (reply,) = grid.pull_messages([second])
    assert reply.metadata.reply_to_message_id == second
    assert reply.metadata.src_node_id == grid.node_ids["b"]
    assert [r.metadata.reply_to_message_id for r in grid.pull_messages([first, second])] == [first]


def test_an_exception_becomes_an_error_reply_without_its_text(
    caplog: pytest.LogCaptureFixture,
) -> None:
    seen: list[Message] = []
    grid = LocalGrid(counting_app([]), ["a", "raises"], on_message=seen.append)
    good, bad = grid.send_and_receive(messages(grid, ["a", "raises"]))
    assert count(good) == 1
    assert bad.error.reason == "client raises raised RuntimeError"
    assert len(seen) == 4
    assert not any(SECRET.encode() in serialised(message) for message in seen)
    assert SECRET in caplog.text


def test_a_kind_of_message_that_the_app_does_not_know_fails_the_client() -> None:
    grid = LocalGrid(counting_app([]), ["a"])
    asked = grid.create_message(RecordDict(), MessageType.EVALUATE, grid.node_ids["a"], "1")
    (reply,) = grid.send_and_receive([asked])
    assert reply.error.reason == "client a raised ValueError"


def test_a_client_slower_than_the_timeout_does_not_answer_and_holds_nobody_up() -> None:
    ran: list[str] = []
    grid = LocalGrid(counting_app(ran), ["a", "slow", "z"])
    replies = grid.send_and_receive(messages(grid, ["a", "slow", "z"]), timeout=0.3)
    assert [reply.metadata.src_node_id for reply in replies] == [
        grid.node_ids["a"],
        grid.node_ids["z"],
    ]
    assert ran == ["a", "slow", "z"]


@pytest.mark.parametrize("clients", [[], ["a", "b", "a"]])
def test_no_client_or_one_twice_is_refused(clients: list[str]) -> None:
    with pytest.raises(ValueError, match=f"got {len(clients)} ids, {len(set(clients))} of them"):
        LocalGrid(counting_app([]), clients)


def test_a_cohorts_view_shows_the_cohort_and_reaches_the_clients() -> None:
    grid = LocalGrid(counting_app([]), ["a", "b", "c"])
    view = CohortGrid(grid, [grid.node_ids["b"]])
    view.set_run(Run.create_empty(5))
    assert grid.run.run_id == view.run.run_id == 5
    assert [node.node_id for node in view.get_nodes()] == [grid.node_ids["b"]]
    asked = view.create_message(RecordDict(), MessageType.TRAIN, grid.node_ids["b"], "1")
    (reply,) = view.pull_messages(view.push_messages([asked]))
    assert count(reply) == 1
