import logging
import signal
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from flwr.app import ConfigRecord, Context, Message, MessageType, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.quadratic_clients import (
    SECRET,
    QuadraticClients,
    adapter_at,
    entries,
    same_bytes,
    serialised,
)
from pkgllm.federation.algorithms.fedavg import FedAvg
from pkgllm.federation.algorithms.scaffold import Scaffold
from pkgllm.federation.clients import LocalClients, Weighting
from pkgllm.federation.flower import records
from pkgllm.federation.flower.client_app import CohortApp
from pkgllm.federation.flower.internals import RUN_ID, become_server
from pkgllm.federation.messages import Broadcast, Instruction
from pkgllm.lm.adapter import AdapterState
from pkgllm.training.local import CohortTrainer, TrainedClient

TARGETS = {"p1": 8.0, "p2": 16.0, "p3": 24.0}


def app_of(trainer: CohortTrainer) -> CohortApp:
    return CohortApp(LocalClients(trainer, FedAvg()))


def context_of(client: str) -> Context:
    return Context(RUN_ID, int(client[1:]), {"client-id": client}, RecordDict(), {})


def contexts_of(*clients: str) -> list[Context]:
    return [context_of(client) for client in clients]


def train_message(
    client: str,
    *,
    start: float = 0.0,
    round_num: int = 4,
    learning_rate: float = 0.5,
    kl_baseline: float | None = None,
    **more: Any,
) -> Message:
    become_server()
    content = records.instruction_content(
        Instruction(
            adapter=adapter_at(start),
            round_num=round_num,
            learning_rate=learning_rate,
            kl_baseline=kl_baseline,
            **more,
        )
    )
    return Message(content, int(client[1:]), MessageType.TRAIN)


def came_to(reply: Message) -> set[float]:
    return entries(records.to_adapter(reply.content.array_records["arrays"]))


def reasons(replies: list[Message]) -> dict[int, str]:
    """Return why nodes failed, by node id."""
    return {r.metadata.src_node_id: str(r.error.reason) for r in replies if r.has_error()}


def test_a_cohort_trains_in_one_call_and_is_answered_in_order() -> None:
    clients = QuadraticClients(TARGETS)
    messages = [train_message(client) for client in ("p2", "p3", "p1")]
    replies = app_of(clients).answer(messages, contexts_of("p2", "p3", "p1"))
    assert clients.calls == [(4, ("p2", "p3", "p1"), 0.5)]
    assert [reply.metadata.src_node_id for reply in replies] == [2, 3, 1]
    # From 0 half way to 16, 24 and 8.
    assert [came_to(reply) for reply in replies] == [{8.0}, {12.0}, {4.0}]


def test_clients_train_with_the_baseline_that_each_was_sent() -> None:
    clients = QuadraticClients(TARGETS)
    sent = {"p1": 0.0, "p2": 2.5, "p3": 0.0}
    app_of(clients).answer(
        [train_message(client, kl_baseline=sent[client]) for client in sent], contexts_of(*sent)
    )
    app_of(clients).answer([train_message("p1")], contexts_of("p1"))
    assert clients.calls == [(4, ("p1", "p3"), 0.5), (4, ("p2",), 0.5), (4, ("p1",), 0.5)]
    assert clients.baselines == [0.0, 2.5, None]


def test_flowers_app_trains_the_client_of_its_node() -> None:
    clients = QuadraticClients(TARGETS)
    reply = app_of(clients).flower_app(train_message("p1"), context_of("p1"))
    assert clients.calls == [(4, ("p1",), 0.5)]
    assert came_to(reply) == {4.0}


def test_a_node_says_which_client_it_is() -> None:
    become_server()
    asked = Message(RecordDict(), 2, MessageType.QUERY)
    reply = app_of(QuadraticClients(TARGETS)).flower_app(asked, context_of("p2"))
    assert records.read_client(reply) == "p2"


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.floats(-9, 9, width=32),
            st.floats(-9, 9, width=32),
            st.integers(1, 2),
            st.sampled_from([0.25, 0.5]),
        ),
        min_size=1,
        max_size=6,
    ),
    st.sampled_from([("uniform", False), ("uniform", True), ("examples", True)]),
)
def test_a_cohort_sends_the_bytes_that_its_clients_would_send_alone(
    parts: list[tuple[float, float, int, float]], sent: tuple[Weighting, bool]
) -> None:
    names = [f"p{number}" for number in range(1, len(parts) + 1)]
    trainer = QuadraticClients(
        {name: target for name, (target, *_) in zip(names, parts, strict=True)},
        num_groups={name: number for number, name in enumerate(names, start=1)},
        faults={"p3": ValueError(), "p4": adapter_at(float("nan"))},
    )
    app = CohortApp(
        LocalClients(trainer, FedAvg(), weighting=sent[0], report_private_metrics=sent[1])
    )
    messages = [
        train_message(name, start=start, round_num=round_num, learning_rate=learning_rate)
        for name, (_, start, round_num, learning_rate) in zip(names, parts, strict=True)
    ]
    together = app.answer(messages, contexts_of(*names))
    # Clients that share round and learning rate share a call, and no others do.
    assert len(trainer.calls) == len({(part[2], part[3]) for part in parts})
    for name, message, reply in zip(names, messages, together, strict=True):
        alone = app.flower_app(message, context_of(name))
        assert alone.has_error() == reply.has_error() == (name == "p3")
        if reply.has_error():
            assert alone.error.reason == reply.error.reason
        else:
            assert serialised(alone.content) == serialised(reply.content)


def test_clients_start_from_what_each_received_and_share_what_is_equal() -> None:
    class Keeps(QuadraticClients):
        def begin(self, adapters: Mapping[str, AdapterState], round_num: int) -> None:
            self.received = dict(adapters)

    clients = Keeps(TARGETS)
    starts = {"p1": 0.0, "p2": 4.0, "p3": 0.0}
    messages = [train_message(client, start=start) for client, start in starts.items()]
    replies = app_of(clients).answer(messages, contexts_of(*starts))
    assert len(clients.calls) == 1
    # Half way from 0 to 8, from 4 to 16 and from 0 to 24.
    assert [came_to(reply) for reply in replies] == [{4.0}, {10.0}, {12.0}]
    assert clients.received["p1"] is clients.received["p3"]
    assert same_bytes(clients.received["p2"], adapter_at(4.0))


def test_a_client_that_fails_is_named_beside_the_others_and_its_text_stays(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clients = QuadraticClients(TARGETS, faults={"p2": RuntimeError(SECRET)})
    with caplog.at_level(logging.DEBUG, logger="pkgllm"):
        replies = app_of(clients).answer(
            [train_message(client) for client in TARGETS], contexts_of(*TARGETS)
        )
    assert [came_to(replies[index]) for index in (0, 2)] == [{4.0}, {12.0}]
    assert reasons(replies) == {2: "client p2 raised RuntimeError"}
    assert not any(SECRET.encode() in serialised(reply) for reply in replies)
    warning, detail = caplog.records
    assert warning.getMessage() == f"client p2 failed: RuntimeError: {SECRET}"
    assert detail.exc_info


def test_what_a_trainer_raises_fails_the_clients_of_that_call() -> None:
    class FailsInRoundFive(QuadraticClients):
        def begin(self, adapters: Mapping[str, AdapterState], round_num: int) -> None:
            if round_num == 5:
                raise MemoryError(SECRET)

    messages = [
        train_message("p1", round_num=5),
        train_message("p2"),
        train_message("p3", round_num=5),
    ]
    replies = app_of(FailsInRoundFive(TARGETS)).answer(messages, contexts_of(*TARGETS))
    assert came_to(replies[1]) == {8.0}
    assert reasons(replies) == {
        1: "client p1 raised MemoryError",
        3: "client p3 raised MemoryError",
    }
    assert not any(SECRET.encode() in serialised(reply) for reply in replies)


def test_a_message_that_cannot_be_read_fails_its_client_alone() -> None:
    clients = QuadraticClients(TARGETS)
    empty, torn = Message(RecordDict(), 1, MessageType.TRAIN), train_message("p3")
    torn.content[records.CONFIG] = ConfigRecord({"round_num": 4})
    replies = app_of(clients).answer([empty, train_message("p2"), torn], contexts_of(*TARGETS))
    assert clients.calls == [(4, ("p2",), 0.5)]
    assert came_to(replies[1]) == {8.0}
    assert reasons(replies) == {1: "client p1 raised KeyError", 3: "client p3 raised KeyError"}


def test_an_update_that_cannot_be_sent_fails_its_client_alone() -> None:
    clients = QuadraticClients(
        TARGETS, faults={"p1": {"layer.lora_A": torch.zeros(1, requires_grad=True)}}
    )
    replies = app_of(clients).answer(
        [train_message(client) for client in TARGETS], contexts_of(*TARGETS)
    )
    assert [came_to(reply) for reply in replies[1:]] == [{8.0}, {12.0}]
    assert reasons(replies) == {1: "client p1 raised RuntimeError"}


def test_ctrl_c_is_no_clients_failure() -> None:
    class Interrupted(QuadraticClients):
        def train(
            self, client: str, adapter: AdapterState, learning_rate: float
        ) -> TrainedClient | Exception:
            if client == "p2":
                signal.raise_signal(signal.SIGINT)
            return super().train(client, adapter, learning_rate)

    app = app_of(Interrupted(TARGETS))
    with pytest.raises(KeyboardInterrupt):
        app.answer([train_message(client) for client in TARGETS], contexts_of(*TARGETS))
    with pytest.raises(KeyboardInterrupt):
        app.flower_app(train_message("p2"), context_of("p2"))


def test_two_messages_for_one_client_are_refused() -> None:
    messages = [train_message("p1"), train_message("p2"), train_message("p1", round_num=5)]
    with pytest.raises(ValueError, match="for different clients, got 3 for 2"):
        app_of(QuadraticClients(TARGETS)).answer(messages, contexts_of("p1", "p2", "p1"))


def test_a_trainer_that_leaves_a_client_out_is_refused() -> None:
    class Forgetful(QuadraticClients):
        def __call__(
            self, adapters: Mapping[str, AdapterState], **terms: Any
        ) -> dict[str, TrainedClient | Exception]:
            trained = super().__call__(adapters, **terms)
            del trained["p2"]
            return trained

    with pytest.raises(KeyError, match="p2"):
        app_of(Forgetful(TARGETS)).answer(
            [train_message(client) for client in TARGETS], contexts_of(*TARGETS)
        )


def test_weights_that_tell_a_private_count_need_consent() -> None:
    with pytest.raises(ValueError, match="set report_private_metrics or use weighting 'uniform'"):
        LocalClients(QuadraticClients(TARGETS), FedAvg(), weighting="examples")


def test_an_algorithm_that_keeps_states_needs_a_place_for_them() -> None:
    with pytest.raises(ValueError, match="scaffold needs a place for the clients' states"):
        LocalClients(QuadraticClients(TARGETS), Scaffold())


@pytest.mark.parametrize(
    "other",
    [
        {"broadcast": Broadcast(numbers={"proximal-mu": 1.0})},
        {"broadcast": Broadcast(tensors={"control": adapter_at(0.0)}), "accepted_round": 0},
        {"accepted_round": 0},
    ],
)
def test_a_server_with_another_algorithm_is_refused(
    other: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    clients = QuadraticClients(TARGETS)
    replies = app_of(clients).answer([train_message("p1", **other)], contexts_of("p1"))
    assert reasons(replies) == {1: "client p1 raised FederationError"}
    assert "give both sides the same mode.strategy" in caplog.text
    assert clients.calls == []
