import io
import math
import random
import re
import zipfile
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, Message, MessageType, MetricRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st

from helpers.quadratic_clients import adapter_at, same_bytes
from pkgllm.federation.flower import records
from pkgllm.federation.flower.internals import become_server
from pkgllm.federation.messages import Broadcast, Instruction, Update
from pkgllm.federation.updates import usable_updates
from pkgllm.privacy.local_noise import LocalNoise

EXPECTED = adapter_at(0.0)


def instruction(kl_baseline: float | None = None) -> Message:
    become_server()
    content = records.instruction_content(
        Instruction(
            adapter=adapter_at(0.5), round_num=7, learning_rate=0.25, kl_baseline=kl_baseline
        )
    )
    return Message(content, dst_node_id=2, message_type=MessageType.TRAIN)


def update(
    arrays: dict[str, np.ndarray] | None = None, metrics: dict[str, object] | None = None
) -> Message:
    """Return a sound update with some of its arrays or all of its metrics replaced."""
    values = {key: tensor.numpy() for key, tensor in EXPECTED.items()} | (arrays or {})
    content = RecordDict(
        {
            records.ARRAYS: ArrayRecord({key: Array(value) for key, value in values.items()}),
            records.METRICS: MetricRecord(metrics or {"weight": 1.0}),  # type: ignore[arg-type]
        }
    )
    return Message(content, reply_to=instruction())


@pytest.mark.slow
@given(
    st.dictionaries(
        st.text(min_size=1),
        st.lists(st.floats(width=32, allow_nan=True), max_size=6),
        max_size=4,
    )
)
def test_an_adapter_survives_the_way_to_the_bit(values: dict[str, list[float]]) -> None:
    adapter = {key: torch.tensor(values[key], dtype=torch.float32) for key in sorted(values)}
    back = records.to_adapter(records.to_record(adapter))
    assert same_bytes(back, adapter)
    assert all(tensor.dtype == torch.float32 for tensor in back.values())


def test_a_read_adapter_is_the_readers_own() -> None:
    record = records.to_record(adapter_at(1.0))
    records.to_adapter(record)["layer.lora_A"].fill_(9.0)
    assert same_bytes(records.to_adapter(record), adapter_at(1.0))


def read(*messages: Message) -> list[Instruction]:
    asked = records.read_instructions(messages)
    assert all(isinstance(one, Instruction) for one in asked)
    return [one for one in asked if isinstance(one, Instruction)]


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"kl_baseline": 0.5},
        {"broadcast": Broadcast(numbers={"proximal-mu": 0.5})},
        {"broadcast": Broadcast(tensors={"control": adapter_at(1.0)}), "accepted_round": 3},
        {"local_noise": LocalNoise(clip_norm=2.0, noise_multiplier=1.5, min_shares=4)},
    ],
)
def test_an_instruction_is_read_as_it_was_written(more: dict[str, Any]) -> None:
    become_server()
    sent = Instruction(adapter=adapter_at(0.5), round_num=7, learning_rate=0.25, **more)
    (asked,) = read(Message(records.instruction_content(sent), 2, MessageType.TRAIN))
    assert same_bytes(asked.adapter, sent.adapter)
    for name, tensors in sent.broadcast.tensors.items():
        assert same_bytes(asked.broadcast.tensors[name], tensors)
    assert asked.broadcast.names == sent.broadcast.names

    def without_tensors(instruction: Instruction) -> Instruction:
        numbers = Broadcast(numbers=instruction.broadcast.numbers)
        return replace(instruction, adapter={}, broadcast=numbers)

    assert without_tensors(asked) == without_tensors(sent)


@pytest.mark.parametrize("kl_baseline", [None, 0.0, 1 / 3, 1e30])
def test_a_baseline_is_sent_where_there_is_one(kl_baseline: float | None) -> None:
    message = instruction(kl_baseline)
    (asked,) = read(message)
    assert asked.kl_baseline == kl_baseline
    sent = {"round_num", "server-round", "learning_rate"}
    sent |= {"kl_baseline"} if kl_baseline is not None else set()
    assert set(message.content.config_records[records.CONFIG]) == sent


@pytest.mark.slow
@given(st.lists(st.sampled_from([0.0, -0.0, 1.0, math.nan]), min_size=1, max_size=6), st.data())
def test_equal_adapters_are_one_object_and_others_are_not(
    values: list[float], data: st.DataObject
) -> None:
    sent = [adapter_at(value) for value in values]
    shared = records.to_record(sent[0])
    messages = [instruction() for _ in values]
    for message, adapter in zip(messages, sent, strict=True):
        again = same_bytes(adapter, sent[0]) and data.draw(st.booleans())
        message.content[records.ARRAYS] = shared if again else records.to_record(adapter)
    adapters = [asked.adapter for asked in read(*messages)]
    assert all(map(same_bytes, adapters, sent))
    for one in range(len(sent)):
        for other in range(len(sent)):
            assert (adapters[one] is adapters[other]) == same_bytes(sent[one], sent[other])


def test_arrays_that_several_messages_share_are_decoded_once() -> None:
    class Counted(Array):
        reads = 0

        def numpy(self) -> np.ndarray:
            Counted.reads += 1
            return super().numpy()

    record = records.to_record(adapter_at(0.5))
    for key, array in record.items():
        record[key] = Counted(array.dtype, array.shape, array.stype, array.data)
    messages = [instruction() for _ in range(5)]
    for message in messages:
        message.content[records.ARRAYS] = record
    assert len(read(*messages)) == 5
    assert Counted.reads == len(record) == 2


def damaged(what: str) -> Message:
    message = instruction()
    config = message.content.config_records[records.CONFIG]
    arrays = message.content.array_records[records.ARRAYS]
    match what:
        case "no arrays":
            del message.content[records.ARRAYS]
        case "no config":
            del message.content[records.CONFIG]
        case "no rate":
            del config["learning_rate"]
        case "no round":
            del config["round_num"]
        case "a list of rounds":
            config["round_num"] = [7, 8]
        case "a rate in words":
            config["learning_rate"] = "fast"
        case "a list of baselines":
            config["kl_baseline"] = [1.0, 2.0]
        case "torn bytes":
            whole = arrays["layer.lora_A"]
            arrays["layer.lora_A"] = Array(whole.dtype, whole.shape, whole.stype, whole.data[:-4])
        case "an error":
            return records.failure_reply(message, "p1", RuntimeError())
    return message


@pytest.mark.parametrize(
    ("what", "kind"),
    [
        ("no arrays", KeyError),
        ("no config", KeyError),
        ("no rate", KeyError),
        ("no round", KeyError),
        ("a list of rounds", TypeError),
        ("a rate in words", TypeError),
        ("a list of baselines", TypeError),
        ("torn bytes", ValueError),
        ("an error", ValueError),
    ],
)
def test_what_cannot_be_read_does_not_touch_the_others(what: str, kind: type[Exception]) -> None:
    before, between, after = records.read_instructions(
        [instruction(), damaged(what), instruction()]
    )
    assert type(between) is kind
    assert isinstance(before, Instruction)
    assert isinstance(after, Instruction)
    assert before.adapter is after.adapter


def test_an_update_is_read_as_it_was_written() -> None:
    sent = Update(adapter=adapter_at(1.0), weight=5.0, metrics={"num_groups": 5, "loss": 0.75})
    reply = records.update_reply(instruction(), sent)
    assert sorted(reply.content) == ["arrays", "metrics"]
    assert dict(reply.content.metric_records["metrics"]) == {"weight": 5.0, **sent.metrics}
    read_back = records.read_update(reply, EXPECTED)
    assert isinstance(read_back, Update)
    assert same_bytes(read_back.adapter, sent.adapter)
    assert (read_back.weight, read_back.metrics) == (sent.weight, sent.metrics)


def test_a_failure_names_the_client_and_the_type_alone() -> None:
    reply = records.failure_reply(instruction(), "p7", KeyError("Heat (1995)"))
    assert reply.error.reason == "client p7 raised KeyError"
    assert not reply.has_content()
    assert records.num_bytes(reply) == 0


def test_bytes_are_those_of_the_serialised_arrays_and_their_names() -> None:
    # Two arrays of 6 float32: 2 * (128 bytes of numpy's header + 24) + 2 * 12 bytes of name.
    arrays = 2 * (128 + 24) + 2 * len("layer.lora_A")
    # The metric's name has 6 letters and its value 8 bytes.
    assert records.num_bytes(update()) == arrays + 6 + 8


SHAPE = (2, 3)


def fault_of(reply: Message) -> str:
    """Why the server leaves a reply out."""
    _, faults = usable_updates({"p1": records.read_update(reply, EXPECTED)}, EXPECTED)
    return faults["p1"]


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"layer.lora_A": np.full(SHAPE, math.nan, np.float32)}, "layer.lora_A holds NaN"),
        ({"layer.lora_B": np.full((3, 2), -math.inf, np.float32)}, "layer.lora_B holds NaN or inf"),
        ({"layer.lora_A": np.zeros((3, 3), np.float32)}, r"shape \(2, 3\), got .* \(3, 3\)"),
        ({"layer.lora_A": np.zeros(SHAPE)}, r"must be float32 .* got float64"),
        ({"layer.lora_A": np.zeros(SHAPE, ">f4")}, r"must be float32 .* got >f4"),
        ({"other": np.zeros(1, np.float32)}, "0 keys missing and 1 foreign"),
    ],
)
def test_an_adapter_that_cannot_be_averaged_is_told(
    arrays: dict[str, np.ndarray], reason: str
) -> None:
    assert re.search(reason, fault_of(update(arrays)))


def npy(header: str, values: bytes = bytes(24)) -> bytes:
    """A file of numpy with any header."""
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + values


def with_data(data: bytes, *, dtype: str = "float32", stype: str = "numpy.ndarray") -> Message:
    """A reply with other bytes under a sound declaration."""
    reply = update()
    arrays = reply.content.array_records[records.ARRAYS]
    arrays["layer.lora_A"] = Array(dtype, SHAPE, stype, data)
    return reply


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.npy", b"x")
    return file.getvalue()


SOUND = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }\n"
SHAPE_OF = "{'descr': '<f4', 'fortran_order': False, 'shape': (%s), }\n"


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (with_data(b""), "cannot be read"),
        (with_data(b"\x80\x04nonsense"), "cannot be read"),
        (with_data(zipped()), "cannot be read"),
        (with_data(npy(SOUND)[:-4]), "must have 24 bytes of values, got 20"),
        (with_data(npy(SOUND) + b"more"), "must have 24 bytes of values, got 28"),
        (with_data(npy(SOUND), stype="torch"), "cannot be read"),
        (with_data(npy(SOUND), dtype="\x1b[2J"), "got \ufffd[2J of shape (2, 3)"),
        (with_data(npy("{'descr': '<f4', \n")), "cannot be read"),
        (with_data(npy(SOUND.replace("<f4", ">f4"))), "cannot be read"),
        (with_data(npy(SOUND.replace("<f4", "|O"))), "cannot be read"),
        (with_data(npy("(" * 5000)), "cannot be read"),
        (with_data(npy(SHAPE_OF % "1000000000000,")), "bytes have the shape 1000000000000,"),
        (with_data(npy(SHAPE_OF % (1 << 70))), "its bytes have the shape"),
        (with_data(npy(SHAPE_OF % ("9" * 5000))), "reply cannot be read: ValueError"),
    ],
)
def test_bytes_that_are_not_what_they_are_declared_to_be_are_told(
    reply: Message, reason: str
) -> None:
    assert reason in fault_of(reply)


@pytest.mark.parametrize("order", ["C", "F"])
def test_both_orders_of_values_are_read(order: Literal["C", "F"]) -> None:
    values = np.arange(6, dtype=np.float32).reshape(SHAPE)
    file = io.BytesIO()
    np.save(file, np.asarray(values, order=order))
    read_back = records.read_update(with_data(file.getvalue()), EXPECTED)
    assert isinstance(read_back, Update)
    assert np.array_equal(read_back.adapter["layer.lora_A"].numpy(), values)


SNIPPETS = (*(b"(", b"[", b"{", b"'", b'"', b"-", b"#"), b"\n", b"\xff", b"None", b"1e9", b"9" * 8)


def damaged_at_random(data: bytes, rng: random.Random) -> bytes:
    """Replace, remove and insert bytes, most of them in the header."""
    damaged = bytearray(data)
    for _ in range(rng.randint(1, 6)):
        place = rng.randrange(min(len(damaged), 130) or 1)
        match rng.randrange(3):
            case 0:
                damaged[place : place + 1] = bytes([rng.randrange(256)])
            case 1:
                damaged[place : place + rng.randint(1, 8)] = b""
            case _:
                damaged[place:place] = rng.choice(SNIPPETS)
    return bytes(damaged)


@given(st.randoms(use_true_random=False))
def test_no_damage_of_a_reply_raises(rng: random.Random) -> None:
    assert_named_or_sound(rng)


@pytest.mark.slow
def test_ten_thousand_damages_of_a_reply_raise_nothing() -> None:
    rng = random.Random(0)
    faults = sum(assert_named_or_sound(rng) for _ in range(10_000))
    assert faults > 7_000


def assert_named_or_sound(rng: random.Random) -> bool:
    """Damage one array; say whether that was noticed."""
    file = io.BytesIO()
    np.save(file, np.zeros(SHAPE, np.float32))
    reply = with_data(damaged_at_random(file.getvalue(), rng))
    updates, faults = usable_updates({"p1": records.read_update(reply, EXPECTED)}, EXPECTED)
    if updates:
        value = updates["p1"].adapter["layer.lora_A"]
        assert (value.dtype, tuple(value.shape)) == (torch.float32, SHAPE)
        assert value.isfinite().all()
    return bool(faults["p1"]) if faults else False


def test_an_adapter_without_tensors_is_told() -> None:
    empty = update()
    empty.content[records.ARRAYS] = ArrayRecord()
    assert fault_of(empty) == "adapter has 2 keys missing and 0 foreign"


@pytest.mark.parametrize(
    ("metrics", "reason"),
    [
        ({"weight": math.nan}, "weight must be positive and finite, got nan"),
        ({"weight": 0.0}, "weight must be positive and finite, got 0.0"),
        ({"weight": -1.0}, "weight must be positive and finite, got -1.0"),
        ({"weight": [1.0, 1.0]}, "metric weight must be one finite number, got [1.0, 1.0]"),
        ({"loss": 1.0}, "metric weight is missing"),
        ({"weight": 1.0, "loss": math.inf}, "metric loss must be one finite number, got inf"),
    ],
)
def test_metrics_that_cannot_be_averaged_are_told(metrics: dict[str, object], reason: str) -> None:
    assert fault_of(update(metrics=metrics)) == reason


def test_an_update_with_other_records_is_told() -> None:
    reply = update()
    reply.content["more"] = ArrayRecord()
    assert fault_of(reply) == (
        "sent the records ['arrays', 'metrics', 'more'], not arrays and metrics"
    )
