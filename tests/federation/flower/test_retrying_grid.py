import json
import logging
import time
from collections.abc import Iterable

import pytest
import torch
from flwr.app import Message, RecordDict

from helpers.superlink_state import SuperLinkState
from pkgllm.federation.algorithms.fedavg import FedAvg
from pkgllm.federation.flower.transport import FlowerTransport
from pkgllm.federation.rounds import RoundRecord, Rounds, run_rounds


@pytest.fixture
def link() -> SuperLinkState:
    link = SuperLinkState(["1", "2", "3"])
    link.come("1", "2", "3")
    assert sorted(link.grid.get_node_ids()) == sorted(link.node_ids.values())
    return link


def test_clients_that_stay_are_asked_once_and_answer_in_order(link: SuperLinkState) -> None:
    link.then()
    link.then(lambda: link.serve("3", "1"))
    link.then(lambda: link.serve("2"))
    replies = link.ask("1", "2", "3")
    assert [reply.metadata.src_node_id for reply in replies] == list(link.node_ids.values())
    assert sorted(client for client, _ in link.given) == ["1", "2", "3"]


def test_a_node_that_died_with_the_message_is_asked_again_in_its_next_life(
    link: SuperLinkState, caplog: pytest.LogCaptureFixture
) -> None:
    link.then()
    link.then(lambda: link.serve("1", "3"), lambda: link.take("2"), lambda: link.go("2"))
    link.then()
    link.then(lambda: link.come("2"))
    link.then(lambda: link.serve("2"))
    with caplog.at_level(logging.WARNING, "pkgllm"):
        replies = link.ask("1", "2", "3")
    assert [reply.has_content() for reply in replies] == [True] * 3
    assert [client for client, _ in link.given].count("2") == 2
    assert "client 2 went away and is back; it is asked again" in caplog.text


def test_a_restart_between_two_looks_is_noticed(link: SuperLinkState) -> None:
    # No look sees the node away, so Flower never says that it was.
    link.then()
    link.then(
        lambda: link.serve("1", "3"),
        lambda: link.take("2"),
        lambda: link.go("2"),
        lambda: link.come("2"),
    )
    link.then(lambda: link.serve("2"))
    assert len(link.ask("1", "2", "3")) == 3
    assert [client for client, _ in link.given].count("2") == 2


def test_a_client_that_is_away_when_asked_is_asked_when_it_comes(link: SuperLinkState) -> None:
    link.then(lambda: link.go("2"))
    link.then(lambda: link.serve("1", "3"))
    link.then(lambda: link.come("2"))
    link.then(lambda: link.serve("2"))
    assert len(link.ask("1", "2", "3")) == 3
    assert [client for client, _ in link.given].count("2") == 1


def test_a_client_that_comes_back_as_another_node_keeps_its_first_id(link: SuperLinkState) -> None:
    first = link.node_ids["2"]

    def replace() -> None:
        link.take("2")
        link.go("2")
        link.state.delete_node("aid", first)
        link.roster["2"] = b"new key of 2"
        link.node_ids["2"] = link.register(b"new key of 2")
        link.come("2")

    link.then()
    link.then(lambda: link.serve("1"), replace)
    link.then(lambda: link.serve("2"))
    asked = [
        link.grid.create_message(RecordDict(), "train", node_id, "1")
        for node_id in (link.node_ids["1"], first)
    ]
    replies = link.grid.send_and_receive(asked, timeout=5.0)
    assert [reply.metadata.src_node_id for reply in replies] == [link.node_ids["1"], first]
    assert ("2", link.node_ids["2"]) in link.given
    assert first in link.grid.get_node_ids()
    assert link.node_ids["2"] not in link.grid.get_node_ids()


def test_a_client_that_failed_is_not_asked_again(link: SuperLinkState) -> None:
    def fail() -> None:
        (message,) = link.take("2")
        link.fail("2", message)

    link.then()
    link.then(fail)
    link.then(lambda: link.go("2"), lambda: link.come("2"))
    link.then(lambda: link.serve("1", "2", "3"))
    replies = {reply.metadata.src_node_id: reply for reply in link.ask("1", "2", "3")}
    failed = replies.pop(link.node_ids["2"])
    assert failed.error.reason == "client 2 raised ValueError"
    assert all(reply.has_content() for reply in replies.values())
    assert [client for client, _ in link.given].count("2") == 1


def test_a_client_that_stays_away_has_no_reply_when_time_is_over(link: SuperLinkState) -> None:
    link.then()
    link.then(lambda: link.serve("1", "3"), lambda: link.take("2"), lambda: link.go("2"))
    replies = link.ask("1", "2", "3", timeout=0.3)
    assert [reply.metadata.src_node_id for reply in replies] == [
        link.node_ids["1"],
        link.node_ids["3"],
    ]


def test_what_nobody_waits_for_any_more_is_not_given_out(link: SuperLinkState) -> None:
    assert link.ask("1", timeout=0.0) == []
    # The shortest life of a message is a second.
    time.sleep(1.1)
    assert link.take("1") == []


def test_a_node_whose_key_is_on_no_list_is_not_seen(link: SuperLinkState) -> None:
    stranger = link.register(b"a key that somebody registered")
    assert link.state.activate_node(stranger, 1800.0)
    assert stranger in link.flower_grid.get_node_ids()
    assert stranger not in link.grid.get_node_ids()


def test_a_node_that_says_it_is_another_client_is_left_out(link: SuperLinkState) -> None:
    def lie() -> None:
        (message,) = link.take("2")
        link.answer("2", message, says="1")

    link.then()
    link.then(lie, lambda: link.serve("1"))
    first, second = link.ask("1", "2")
    assert first.has_content()
    assert second.metadata.src_node_id == link.node_ids["2"]
    assert second.error.reason == (
        "the key is that of client 2, and the reply says client 1; give each client a key of its "
        "own"
    )


def test_a_reply_that_flower_cannot_decode_fails_its_sender_alone(
    link: SuperLinkState, monkeypatch: pytest.MonkeyPatch
) -> None:
    pull = link.flower_grid.pull_messages

    def damaged(message_ids: Iterable[str]) -> Iterable[Message]:
        replies = list(pull(message_ids))
        if any(reply.metadata.src_node_id == link.node_ids["2"] for reply in replies):
            raise json.JSONDecodeError("no head", "", 0)
        return replies

    monkeypatch.setattr(link.flower_grid, "pull_messages", damaged)
    link.then()
    link.then(lambda: link.serve("1", "2", "3"))
    replies = link.ask("1", "2", "3")
    assert [reply.has_content() for reply in replies] == [True, False, True]
    assert replies[1].error.reason == "reply cannot be read: JSONDecodeError"


def test_a_client_that_does_not_say_who_it_is_is_left_out(
    link: SuperLinkState, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        for message in link.take("2"):
            link.fail("2", message)

    for _ in range(3):
        link.then()
    link.then(lambda: link.serve("1", "3"), fail)
    transport = FlowerTransport(link.grid, others_machines=True)
    assert set(transport.clients(5.0)) == {"1", "3"}
    assert "a client is left out: client 2 raised ValueError" in caplog.text


def test_a_round_names_the_client_that_stayed_away(link: SuperLinkState) -> None:
    rounds: list[RoundRecord] = []
    # The first look is for who is there, the others come with the question who they are.
    link.then()
    link.then()
    link.then()
    link.then(lambda: link.serve("1", "2", "3"))
    link.then()
    link.then(lambda: link.serve("1", "3"), lambda: link.take("2"), lambda: link.go("2"))
    run_rounds(
        FlowerTransport(link.grid),
        Rounds(
            algorithm=FedAvg(),
            initial={"a": torch.zeros(1)},
            num_rounds=1,
            cohort_size=3,
            seed=0,
            learning_rate=lambda round_num: 1.0,
            timeout=1.0,
            on_round=rounds.append,
        ),
    )
    (record,) = rounds
    assert record.failed == {"2": "no reply within 1 s"}
    torch.testing.assert_close(record.adapter, {"a": torch.tensor([2.0])})
