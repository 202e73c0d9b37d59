"""What messages hold, and nothing else does: the one place to read what leaves a device.

down  arrays   the adapter, float32, by PEFT's key names
      NAME     tensors that an algorithm sends beside it, such as SCAFFOLD's control, as arrays
      config   round_num, the same as server-round, by which Flower's own parts know it,
               learning_rate, and kl_baseline where the objective takes one; numbers of the
               algorithm, such as FedProx's proximal-mu; accepted_round, the last round whose update
               of this client was averaged, where clients keep a state; where clients add their
               share of the noise, clip_norm, noise_multiplier, min_shares
up    arrays   the client's adapter after its local steps: the update, clipped and noised where
               clients add their share of the noise
      metrics  weight; with ``report_private_metrics`` also num_groups and loss
up    error    the client's id and the type of the exception, never its text
up    config   client-id, once per run, in answer to the question which client a node is
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from pkgllm.federation.flower.internals import app_error
from pkgllm.federation.messages import Broadcast, Fault, Instruction, Update, failure_reason
from pkgllm.federation.updates import described, keys_fault
from pkgllm.lm.adapter import AdapterState
from pkgllm.privacy.local_noise import LocalNoise

ARRAYS = "arrays"
CONFIG = "config"
METRICS = "metrics"
WEIGHT = "weight"
CLIENT_ID = "client-id"

_NOISE = frozenset({"clip_norm", "noise_multiplier", "min_shares"})
_OWN = frozenset({"round_num", "server-round", "learning_rate", "kl_baseline", "accepted_round"})


def to_record(adapter: Mapping[str, torch.Tensor]) -> ArrayRecord:
    """Return an adapter as Flower carries it: float32, keys in sorted order."""
    return ArrayRecord(
        {key: Array(np.asarray(adapter[key].numpy(), np.float32)) for key in sorted(adapter)}
    )


def to_adapter(record: ArrayRecord) -> AdapterState:
    """Return the adapter that a record carries, as fresh float32 tensors in sorted order.

    Example:
        >>> sent = {"b": torch.ones(2), "a": torch.zeros(1, 3)}
        >>> {key: tuple(value.shape) for key, value in to_adapter(to_record(sent)).items()}
        {'a': (1, 3), 'b': (2,)}
    """
    return {
        key: torch.from_numpy(np.array(record[key].numpy(), dtype=np.float32))
        for key in sorted(record)
    }


def instruction_content(
    instruction: Instruction, record: Callable[[AdapterState], ArrayRecord] = to_record
) -> RecordDict:
    """Return what travels down to one client; what is None does not."""
    config = ConfigRecord(
        {
            "round_num": instruction.round_num,
            "server-round": instruction.round_num,
            "learning_rate": instruction.learning_rate,
            **instruction.broadcast.numbers,
        }
    )
    for name in ("kl_baseline", "accepted_round"):
        if (value := getattr(instruction, name)) is not None:
            config[name] = value
    if instruction.local_noise is not None:
        config.update(asdict(instruction.local_noise))
    tensors = instruction.broadcast.tensors
    return RecordDict(
        {
            ARRAYS: record(instruction.adapter),
            **{name: record(value) for name, value in tensors.items()},
            CONFIG: config,
        }
    )


def read_instructions(messages: Sequence[Message]) -> list[Instruction | Exception]:
    """Return what each message of the server asks for, or why it cannot be read.

    Messages with equal arrays get one adapter, decoded once, so that a cohort that starts from
    one adapter holds it in memory once.
    """
    decoded: list[tuple[ArrayRecord, AdapterState]] = []
    instructions: list[Instruction | Exception] = []
    for message in messages:
        try:
            instructions.append(_read_instruction(message, decoded))
        except Exception as error:  # damaged messages raise whatever their readers stumble over
            instructions.append(error)
    return instructions


def _read_instruction(
    message: Message, decoded: list[tuple[ArrayRecord, AdapterState]]
) -> Instruction:
    config = message.content.config_records[CONFIG]
    arrays = message.content.array_records
    noise = _NOISE if config.keys() >= _NOISE else frozenset[str]()
    numbers = {name: _number(config, name) for name in sorted(config.keys() - _OWN - noise)}
    return Instruction(
        adapter=_decode(arrays[ARRAYS], decoded),
        round_num=_whole(config, "round_num"),
        learning_rate=_number(config, "learning_rate"),
        broadcast=Broadcast(
            numbers=numbers,
            tensors={
                name: _decode(arrays[name], decoded) for name in sorted(arrays) if name != ARRAYS
            },
        ),
        kl_baseline=_number(config, "kl_baseline") if "kl_baseline" in config else None,
        accepted_round=_whole(config, "accepted_round") if "accepted_round" in config else None,
        local_noise=_read_local_noise(config) if noise else None,
    )


def _read_local_noise(config: ConfigRecord) -> LocalNoise:
    return LocalNoise(
        _number(config, "clip_norm"),
        _number(config, "noise_multiplier"),
        _whole(config, "min_shares"),
    )


def _decode(arrays: ArrayRecord, decoded: list[tuple[ArrayRecord, AdapterState]]) -> AdapterState:
    for record, adapter in decoded:
        if record is arrays or record == arrays:
            return adapter
    adapter = to_adapter(arrays)
    decoded.append((arrays, adapter))
    return adapter


def _whole(config: ConfigRecord, name: str) -> int:
    value = config[name]
    if not isinstance(value, int):
        raise TypeError(f"{CONFIG} must hold a whole number {name}, got {value!r}")
    return value


def _number(config: ConfigRecord, name: str) -> float:
    value = config[name]
    if not isinstance(value, int | float):
        raise TypeError(f"{CONFIG} must hold a number {name}, got {value!r}")
    return value


def update_reply(message: Message, update: Update) -> Message:
    """Return the message with which a client answers a round."""
    metrics = MetricRecord({WEIGHT: update.weight, **update.metrics})
    content = RecordDict({ARRAYS: to_record(update.adapter), METRICS: metrics})
    return Message(content, reply_to=message)


def read_update(message: Message, expected: AdapterState) -> Update | Fault:
    """Return what a client sent in answer to an instruction, or why it cannot be read.

    Nothing that a reply holds raises. Type, shape and number of bytes of each array are compared
    with what is expected before any memory is taken for it. Whether the values may be aggregated is
    another question; see :func:`~pkgllm.federation.updates.update_fault`.

    Args:
        message: The reply.
        expected: An adapter with the keys and shapes that an update must have, float32.
    """
    try:
        return _read_update(message, expected)
    except Exception as error:
        return unreadable(error)


def unreadable(error: Exception) -> Fault:
    """Return the fault of a reply whose reading raised an exception."""
    return Fault(f"reply cannot be read: {type(error).__name__}")


def _read_update(message: Message, expected: AdapterState) -> Update | Fault:
    if message.has_error():
        return Fault(message.error.reason or f"error {message.error.code}")
    arrays, metrics = message.content.array_records, message.content.metric_records
    if list(arrays) != [ARRAYS] or list(metrics) != [METRICS] or len(message.content) != 2:
        return Fault(f"sent the records {sorted(message.content)}, not {ARRAYS} and {METRICS}")
    numbers: dict[str, float] = {}
    for name, value in metrics[METRICS].items():
        if isinstance(value, list):
            return Fault(f"metric {name} must be one finite number, got {value}")
        numbers[name] = value
    if WEIGHT not in numbers:
        return Fault(f"metric {WEIGHT} is missing")
    if (fault := keys_fault(arrays[ARRAYS].keys(), expected)) is not None:
        return Fault(fault)
    adapter: AdapterState = {}
    for key in sorted(expected):
        values = _read_array(arrays[ARRAYS][key], expected[key])
        if isinstance(values, str):
            return Fault(f"{key} {values}")
        adapter[key] = values
    return Update(adapter=adapter, weight=numbers.pop(WEIGHT), metrics=numbers)


_NPY_HEADER = re.compile(
    rb"\{'descr': '<f4', 'fortran_order': (False|True), 'shape': \(([0-9, ]*)\), \} *\n"
)
"""The one form of header that numpy writes for float32."""


def _read_array(array: Array, expected: torch.Tensor) -> torch.Tensor | str:
    """Return an array as a tensor of its own, or what is wrong with it."""
    shape = tuple(expected.shape)
    if array.dtype != "float32" or array.shape != shape:
        return f"must be {described(expected)}, got {array.dtype} of shape {array.shape}"
    data = array.data
    # Flower's format is that of numpy's files: a magic string with version 1.0, the length of the
    # header in two bytes, the header, the values.
    begin = 10 + int.from_bytes(data[8:10], "little")
    header = _NPY_HEADER.fullmatch(data[10:begin])
    if array.stype != "numpy.ndarray" or data[:8] != b"\x93NUMPY\x01\x00" or header is None:
        return "cannot be read"
    if [int(size) for size in header[2].replace(b",", b" ").split()] != list(shape):
        return f"must be {described(expected)}, its bytes have the shape {header[2].decode()}"
    if len(data) - begin != expected.numel() * 4:
        return f"must have {expected.numel() * 4} bytes of values, got {len(data) - begin}"
    values = np.frombuffer(data, "<f4", offset=begin)
    values = values.reshape(shape, order="F" if header[1] == b"True" else "C")
    return torch.from_numpy(np.array(values, np.float32, order="C"))


def failure_reply(message: Message, client: str, error: Exception) -> Message:
    """Return the message that says a client failed, without the exception's text.

    The text may quote a fact or a prompt. Flower's own runtimes would send it.
    """
    return Message(app_error(failure_reason(client, type(error))), reply_to=message)


def client_reply(message: Message, client: str) -> Message:
    """Return the message that says which client a node is."""
    return Message(RecordDict({CONFIG: ConfigRecord({CLIENT_ID: client})}), reply_to=message)


def read_client(message: Message) -> str | Fault:
    """Return which client the sender of a :func:`client_reply` is, or why that is not known."""
    if message.has_error():
        return Fault(message.error.reason or f"error {message.error.code}")
    client = claimed_client(message)
    return Fault("a node did not say which client it is") if client is None else client


def claimed_client(message: Message) -> str | None:
    """Return which client the sender says it is, or None where it does not say."""
    if not message.has_content():
        return None
    config = message.content.config_records.get(CONFIG)
    return None if config is None or CLIENT_ID not in config else str(config[CLIENT_ID])


def refused_reply(message: Message, fault: Fault) -> Message:
    """Return what stands for the answer to a message where the answer itself cannot be used."""
    return Message(app_error(fault.reason), reply_to=message)


def num_bytes(message: Message) -> int:
    """Return the size of a message's records, bytes; an error has none."""
    if not message.has_content():
        return 0
    content = message.content
    return (
        sum(record.count_bytes() for record in content.array_records.values())
        + sum(record.count_bytes() for record in content.metric_records.values())
        + sum(record.count_bytes() for record in content.config_records.values())
    )
