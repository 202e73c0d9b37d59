import logging

import pytest
from flwr.app import Context, Message, MessageType, RecordDict
from quadratic_clients import SECRET, QuadraticClients, adapter_at, entries, serialised

from pkgllm.federation import records
from pkgllm.federation.client_app import make_client_app
from pkgllm.federation.flower_internals import RUN_ID, become_server

CONTEXT = Context(RUN_ID, 2, {"client-id": "p1"}, RecordDict(), {})


def train_message() -> Message:
    become_server()
    content = RecordDict(
        {
            records.ARRAYS: records.to_record(adapter_at(0.0)),
            records.CONFIG: records.instruction_config(4, 0.5),
        }
    )
    return Message(content, 2, MessageType.TRAIN)


def test_the_client_of_the_node_trains_on_what_was_sent() -> None:
    clients = QuadraticClients({"p1": 8.0})
    app = make_client_app(clients, weighting="uniform", report_private_metrics=False)
    reply = app(train_message(), CONTEXT)
    assert clients.calls == [(4, "p1", 0.5)]
    # 0 + 0.5 * (8 - 0) = 4
    assert entries(records.to_adapter(reply.content.array_records["arrays"])) == {4.0}


def test_an_exceptions_text_is_logged_here_and_not_sent(caplog: pytest.LogCaptureFixture) -> None:
    clients = QuadraticClients({"p1": 8.0}, faults={"p1": RuntimeError(SECRET)})
    app = make_client_app(clients, weighting="uniform", report_private_metrics=False)
    with caplog.at_level(logging.DEBUG, logger="pkgllm"):
        reply = app(train_message(), CONTEXT)
    assert reply.error.reason == "client p1 raised RuntimeError"
    assert SECRET.encode() not in serialised(reply)
    warning, detail = caplog.records
    assert warning.getMessage() == f"client p1 failed: RuntimeError: {SECRET}"
    assert detail.exc_info


def test_a_message_without_an_instruction_fails_the_client_alone() -> None:
    app = make_client_app(
        QuadraticClients({"p1": 8.0}), weighting="uniform", report_private_metrics=False
    )
    become_server()
    reply = app(Message(RecordDict(), 2, MessageType.TRAIN), CONTEXT)
    assert reply.error.reason == "client p1 raised KeyError"


def test_a_node_says_which_client_it_is() -> None:
    app = make_client_app(
        QuadraticClients({"p1": 8.0}), weighting="uniform", report_private_metrics=False
    )
    become_server()
    assert records.read_client(app(Message(RecordDict(), 2, MessageType.QUERY), CONTEXT)) == "p1"


def test_weights_that_tell_a_private_count_need_consent() -> None:
    with pytest.raises(ValueError, match="set report_private_metrics or use weighting 'uniform'"):
        make_client_app(
            QuadraticClients({"p1": 8.0}), weighting="examples", report_private_metrics=False
        )
