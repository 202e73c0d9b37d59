import signal
import socket
import time
from collections.abc import Mapping

import pytest
import torch
from flwr.app import Message

from helpers.one_process import quadratic_rounds
from helpers.quadratic_clients import (
    SECRET,
    QuadraticClients,
    adapter_at,
    entries,
    serialised,
)
from pkgllm.errors import FederationError
from pkgllm.federation.flower.internals import SUPERLINK_NODE_ID
from pkgllm.federation.flower.records import num_bytes
from pkgllm.federation.rounds import RoundRecord
from pkgllm.lm.adapter import AdapterState
from pkgllm.training.local import TrainedClient


def test_equal_weights_give_the_mean() -> None:
    # From 0 half way to 2, 4 and 12: 1, 2 and 6; the mean is 3.
    clients = QuadraticClients({"a": 2.0, "b": 4.0, "c": 12.0}, num_groups={"a": 1, "b": 9})
    torch.testing.assert_close(quadratic_rounds(clients), adapter_at(3.0), rtol=1e-6, atol=0)


def test_weights_by_examples_give_the_weighted_mean() -> None:
    # From 0 half way to 4 and 12: 2 and 6; (1 * 2 + 3 * 6) / 4 = 5.
    clients = QuadraticClients({"a": 4.0, "b": 12.0}, num_groups={"a": 1, "b": 3})
    seen: list[RoundRecord] = []
    after = quadratic_rounds(
        clients, weighting="examples", report_private_metrics=True, on_round=seen.append
    )
    assert entries(after) == {5.0}
    # Loss is the target: (1 * 4 + 3 * 12) / 4 = 10; groups: (1 * 1 + 3 * 3) / 4 = 2.5.
    assert seen[0].metrics == {"num_groups": 2.5, "loss": 10.0}


def test_rounds_follow_the_mean_and_the_learning_rate() -> None:
    clients = QuadraticClients({"a": 0.0, "b": 16.0})
    seen: list[RoundRecord] = []
    # Towards the mean target 8: 0 -> 4 with step .5, 4 -> 5 with step .25.
    after = quadratic_rounds(
        clients, num_rounds=2, learning_rate=lambda r: 0.5 / r, on_round=seen.append
    )
    assert entries(after) == {5.0}
    assert [entries(record.adapter) for record in seen] == [{4.0}, {5.0}]
    assert clients.calls == [(1, ("a", "b"), 0.5), (2, ("a", "b"), 0.25)]
    assert [record.round_num for record in seen] == [1, 2]
    assert {record.cohort for record in seen} == {("a", "b")}
    # 12 entries move by 4, then by 1: sqrt(12) * 4 and sqrt(12).
    assert [record.update_norm for record in seen] == pytest.approx([12**0.5 * 4, 12**0.5])
    # In the first round a stays and b goes 8 in each entry; in the second a goes -1 and b 3.
    assert [(r.spread.norms.min, r.spread.norms.max) for r in seen] == [
        pytest.approx((0.0, 12**0.5 * 8)),
        pytest.approx((12**0.5 * 1, 12**0.5 * 3)),
    ]
    assert [(r.spread.cosines.min, r.spread.cosines.max) for r in seen] == [
        pytest.approx((1.0, 1.0)),
        pytest.approx((-1.0, 1.0)),
    ]
    for record in seen:
        assert record.seconds >= record.training_seconds + record.aggregation_seconds > 0
        assert record.failed == {}
    assert all(value.dtype == torch.float32 for value in after.values())


def test_bytes_of_a_round_are_those_of_its_messages() -> None:
    messages: list[Message] = []
    seen: list[RoundRecord] = []
    quadratic_rounds(
        QuadraticClients({"a": 1.0, "b": 2.0, "c": 3.0}),
        on_message=messages.append,
        on_round=seen.append,
    )
    trains = [message for message in messages if message.metadata.message_type == "train"]
    down = [m for m in trains if m.metadata.src_node_id == SUPERLINK_NODE_ID]
    up = [m for m in trains if m.metadata.dst_node_id == SUPERLINK_NODE_ID]
    assert (len(down), len(up)) == (3, 3)
    assert seen[0].bytes_down == sum(map(num_bytes, down)) > 3 * 12 * 4
    assert seen[0].bytes_up == sum(map(num_bytes, up)) > 3 * 12 * 4


ALLOWED = {
    "query": [{}, {"config": {"client-id"}}],
    "train": [
        {
            "arrays": {"layer.lora_A", "layer.lora_B"},
            "config": {"round_num", "learning_rate", "server-round"},
        },
        {"arrays": {"layer.lora_A", "layer.lora_B"}, "metrics": {"weight"}},
    ],
}


def content_names(message: Message) -> dict[str, set[str]]:
    return {name: set(record) for name, record in message.content.items()}


def test_no_message_of_a_run_holds_a_fact_a_count_or_a_loss() -> None:
    clients = QuadraticClients(
        {name: float(index) for index, name in enumerate("abcd")},
        num_groups={"a": 711, "b": 712, "c": 713, "d": 714},
        faults={"d": ValueError(f"cannot tokenise: {SECRET}")},
    )
    messages: list[Message] = []
    quadratic_rounds(clients, num_rounds=3, cohort_size=3, on_message=messages.append)
    assert len(messages) == 2 * (4 + 3 * 3)
    errors = 0
    for message in messages:
        for word in SECRET.split():
            assert word.encode() not in serialised(message)
        if message.has_error():
            errors += 1
            assert message.error.reason == "client d raised ValueError"
            continue
        assert content_names(message) in ALLOWED[message.metadata.message_type]
        for record in message.content.metric_records.values():
            assert dict(record) == {"weight": 1.0}
    assert errors > 0


def test_the_search_through_a_message_would_find_a_fact() -> None:
    class Leaky(QuadraticClients):
        def train(self, client: str, adapter: AdapterState, learning_rate: float) -> TrainedClient:
            return TrainedClient({**adapter, SECRET: torch.zeros(1)}, 3, 0.0)

    messages: list[Message] = []
    with pytest.raises(FederationError):
        quadratic_rounds(Leaky({"a": 1.0}), on_message=messages.append)
    assert any(SECRET.encode() in serialised(message) for message in messages)
    assert any(
        content_names(message) not in ALLOWED[message.metadata.message_type] for message in messages
    )


FAULTS: Mapping[str, AdapterState | Exception] = {
    "raises": RuntimeError("out of memory"),
    "nan": adapter_at(float("nan")),
    "inf": adapter_at(float("inf")),
    "empty": {},
    "foreign": {**adapter_at(1.0), "other": torch.zeros(1)},
    "shape": {key: value.T.contiguous() for key, value in adapter_at(1.0).items()},
}


def test_faulty_clients_are_left_out_and_named(caplog: pytest.LogCaptureFixture) -> None:
    clients = QuadraticClients({"a": 4.0, "b": 12.0} | dict.fromkeys(FAULTS, 99.0), faults=FAULTS)
    seen: list[RoundRecord] = []
    # Only a and b count: (2 + 6) / 2.
    assert entries(quadratic_rounds(clients, on_round=seen.append)) == {4.0}
    assert seen[0].cohort == tuple(sorted(clients.targets))
    assert seen[0].failed == {
        "empty": "adapter has 2 keys missing and 0 foreign",
        "foreign": "adapter has 0 keys missing and 1 foreign",
        "inf": "layer.lora_A holds NaN or infinity",
        "nan": "layer.lora_A holds NaN or infinity",
        "raises": "client raises raised RuntimeError",
        "shape": "layer.lora_A must be float32 of shape (2, 3), got float32 of shape (3, 2)",
    }
    for client, reason in seen[0].failed.items():
        assert f"round 1: client {client} is left out: {reason}" in caplog.text


def test_a_cohort_that_is_too_slow_is_an_error_that_names_it() -> None:
    class Slow(QuadraticClients):
        def begin(self, adapters: Mapping[str, AdapterState], round_num: int) -> None:
            time.sleep(0.3)

    with pytest.raises(FederationError, match=r"failed are a, b; .* no reply within 0\.1 s"):
        quadratic_rounds(Slow({"a": 4.0, "b": 12.0}), timeout=0.1)


def test_a_round_without_a_usable_update_is_an_error_that_names_it() -> None:
    class FailsInRoundTwo(QuadraticClients):
        def begin(self, adapters: Mapping[str, AdapterState], round_num: int) -> None:
            if round_num == 2:
                raise ZeroDivisionError(SECRET)

    seen: list[RoundRecord] = []
    with pytest.raises(FederationError) as caught:
        quadratic_rounds(FailsInRoundTwo({"b": 1.0, "a": 2.0}), num_rounds=5, on_round=seen.append)
    assert str(caught.value) == (
        "round 2: at least 1 of 2 clients must send a usable update, 0 did; failed are a, b; the "
        "first reason: client a raised ZeroDivisionError; what went wrong is in the log of the "
        "clients"
    )
    assert [record.round_num for record in seen] == [1]


def test_ctrl_c_ends_the_run_in_the_middle_of_a_round() -> None:
    class StoppedInRoundTwo(QuadraticClients):
        def begin(self, adapters: Mapping[str, AdapterState], round_num: int) -> None:
            if round_num == 2:
                signal.raise_signal(signal.SIGINT)

    seen: list[RoundRecord] = []
    with pytest.raises(KeyboardInterrupt):
        quadratic_rounds(
            StoppedInRoundTwo({"a": 1.0, "b": 2.0}), num_rounds=5, on_round=seen.append
        )
    assert [record.round_num for record in seen] == [1]


def test_a_large_failed_cohort_is_named_in_part() -> None:
    names = [f"p{index:02}" for index in range(14)]
    clients = QuadraticClients(
        dict.fromkeys(names, 0.0), faults={name: ValueError() for name in names}
    )
    with pytest.raises(FederationError, match=r"failed are p00, p01, .* p09 and 4 more; the first"):
        quadratic_rounds(clients)


def test_too_large_a_cohort_is_an_error() -> None:
    with pytest.raises(FederationError, match="training clients, 1, got 2"):
        quadratic_rounds(QuadraticClients({"a": 1.0}), cohort_size=2)


def test_nothing_phones_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError(f"phones out: {args}")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert entries(quadratic_rounds(QuadraticClients({"a": 4.0}), num_rounds=2)) == {3.0}
