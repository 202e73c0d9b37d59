"""What messages hold, and nothing else does: the one place to read what leaves a device.

down  arrays   the adapter, float32, by PEFT's key names
      control  SCAFFOLD alone: the mean of the clients' control variates, as arrays
      config   round_num, learning_rate, and kl_baseline where the objective takes one (Flower's
               strategies add server-round, FedProx proximal-mu, SCAFFOLD accepted_round, the last
               round in which it averaged this client's update); where clients add their share of
               the noise, clip_norm, noise_multiplier, min_shares
up    arrays   the client's adapter after its local steps: the update, clipped and noised where
               clients add their share of the noise
      metrics  weight; with ``report_private_metrics`` also num_groups and loss
up    error    the client's id and the type of the exception, never its text
up    config   client-id, once per run, in answer to the question which client a node is
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal, cast

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from numpy.typing import NDArray

from pkgllm.federation.flower.internals import app_error
from pkgllm.lm.adapter import AdapterState
from pkgllm.privacy.local_noise import LocalNoise
from pkgllm.training.local import TrainedClient

Weighting = Literal["uniform", "examples"]

ARRAYS = "arrays"
CONTROL = "control"
CONFIG = "config"
METRICS = "metrics"
WEIGHT = "weight"
CLIENT_ID = "client-id"
PROXIMAL_MU = "proximal-mu"
ACCEPTED_ROUND = "accepted_round"
KL_BASELINE = "kl_baseline"
MIN_SHARES = "min_shares"


@dataclass(frozen=True, slots=True)
class Instruction:
    """What the server asks of one client in one round."""

    adapter: AdapterState
    round_num: int
    learning_rate: float
    proximal_mu: float = 0.0
    """Weight of FedProx's pull towards the adapter."""
    kl_baseline: float | None = None
    """KTO's, computed on public prompts, nats; None but for an objective that takes it."""
    control: AdapterState | None = None
    """The mean control variate; None but for SCAFFOLD."""
    accepted_round: int = 0
    """The last round in which SCAFFOLD's server averaged this client's update; 0 for none."""
    local_noise: LocalNoise | None = None
    """How the server counts on the update being protected; None where it adds the noise itself."""


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


def instruction_config(
    round_num: int,
    learning_rate: float,
    *,
    kl_baseline: float | None = None,
    local_noise: LocalNoise | None = None,
) -> ConfigRecord:
    """Return what travels down beside the adapter; what is None does not."""
    noise = asdict(local_noise) if local_noise is not None else {}
    config = ConfigRecord({"round_num": round_num, "learning_rate": learning_rate, **noise})
    if kl_baseline is not None:
        config[KL_BASELINE] = kl_baseline
    return config


def read_instructions(messages: Sequence[Message]) -> list[Instruction | Exception]:
    """Return what each message of the server asks for, or why it cannot be read.

    Messages with equal arrays get one adapter, decoded once, so that a cohort that starts from
    one adapter holds it in memory once.
    """
    decoded: list[tuple[ArrayRecord, AdapterState]] = []
    found: list[Instruction | Exception] = []
    for message in messages:
        try:
            found.append(_read_instruction(message, decoded))
        except Exception as error:  # damaged messages raise whatever their readers stumble over
            found.append(error)
    return found


def _read_instruction(
    message: Message, decoded: list[tuple[ArrayRecord, AdapterState]]
) -> Instruction:
    config = message.content.config_records[CONFIG]
    arrays = message.content.array_records
    return Instruction(
        _decode(arrays[ARRAYS], decoded),
        _whole(config, "round_num"),
        _number(config, "learning_rate"),
        proximal_mu=_number(config, PROXIMAL_MU) if PROXIMAL_MU in config else 0.0,
        kl_baseline=_number(config, KL_BASELINE) if KL_BASELINE in config else None,
        control=_decode(arrays[CONTROL], decoded) if CONTROL in arrays else None,
        accepted_round=_whole(config, ACCEPTED_ROUND) if CONTROL in arrays else 0,
        local_noise=_read_local_noise(config) if MIN_SHARES in config else None,
    )


def _read_local_noise(config: ConfigRecord) -> LocalNoise:
    return LocalNoise(
        _number(config, "clip_norm"),
        _number(config, "noise_multiplier"),
        _whole(config, MIN_SHARES),
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


def update_reply(
    message: Message,
    trained: TrainedClient,
    *,
    weighting: Weighting,
    report_private_metrics: bool,
) -> Message:
    """Return the message with which a client answers a round."""
    weight = 1.0 if weighting == "uniform" else float(trained.num_groups)
    metrics = MetricRecord({WEIGHT: weight})
    if report_private_metrics:
        metrics["num_groups"] = trained.num_groups
        metrics["loss"] = trained.loss
    content = RecordDict({ARRAYS: to_record(trained.adapter), METRICS: metrics})
    return Message(content, reply_to=message)


def failure_reply(message: Message, client: str, error: Exception) -> Message:
    """Return the message that says a client failed, without the exception's text.

    The text may quote a fact or a prompt. Flower's own runtimes would send it.
    """
    return Message(app_error(failure_reason(client, type(error))), reply_to=message)


def failure_reason(client: str, kind: type[Exception]) -> str:
    """Return what a server learns of an exception.

    Example:
        >>> failure_reason("anna", ValueError)
        'client anna raised ValueError'
    """
    return f"client {client} raised {kind.__name__}"


def client_reply(message: Message, client: str) -> Message:
    """Return the message that says which client a node is."""
    return Message(RecordDict({CONFIG: ConfigRecord({CLIENT_ID: client})}), reply_to=message)


def read_client(message: Message) -> str:
    """Return which client the sender of a :func:`client_reply` is."""
    return str(message.content.config_records[CONFIG][CLIENT_ID])


def claimed_client(message: Message) -> str | None:
    """Return which client the sender says it is, or None where it does not say."""
    if not message.has_content():
        return None
    config = message.content.config_records.get(CONFIG)
    return None if config is None or CLIENT_ID not in config else str(config[CLIENT_ID])


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


def to_metrics(record: MetricRecord) -> dict[str, float]:
    """Return what a record of single numbers holds."""
    return {name: float(cast(float, value)) for name, value in record.items()}


def array_reader(message: Message) -> Callable[[str], NDArray[np.float32]]:
    """Return what decodes one array at a time of an update without :func:`update_fault`."""
    arrays = message.content.array_records[ARRAYS]
    return lambda key: arrays[key].numpy()


def metric_names(message: Message) -> tuple[str, ...]:
    """Return the names of what an update without :func:`update_fault` reports, sorted."""
    return tuple(sorted(message.content.metric_records[METRICS]))


def update_fault(message: Message, expected: Mapping[str, torch.Tensor]) -> str | None:
    """Return why an update must not be aggregated, or None.

    Args:
        message: A client's reply.
        expected: An adapter with the keys and shapes that the update must have.
    """
    if message.has_error():
        return message.error.reason or f"error {message.error.code}"
    arrays, metrics = message.content.array_records, message.content.metric_records
    if list(arrays) != [ARRAYS] or list(metrics) != [METRICS]:
        return f"sent the records {sorted(message.content)}, not {ARRAYS} and {METRICS}"
    return _metrics_fault(metrics[METRICS]) or _arrays_fault(arrays[ARRAYS], expected)


def _metrics_fault(metrics: MetricRecord) -> str | None:
    for name, value in metrics.items():
        if isinstance(value, list) or not math.isfinite(value):
            return f"metric {name} must be one finite number, got {value}"
    weight = metrics.get(WEIGHT)
    if isinstance(weight, list) or weight is None or weight <= 0:
        return f"metric {WEIGHT} must be positive, got {weight}"
    return None


def _arrays_fault(arrays: ArrayRecord, expected: Mapping[str, torch.Tensor]) -> str | None:
    missing, foreign = expected.keys() - arrays.keys(), arrays.keys() - expected.keys()
    if missing or foreign:
        return f"adapter has {len(missing)} keys missing and {len(foreign)} foreign"
    for key, tensor in expected.items():
        try:
            value = arrays[key].numpy()
        except (TypeError, ValueError, EOFError, OSError):
            return f"{key} cannot be read"
        if value.dtype != np.float32 or value.shape != tuple(tensor.shape):
            wanted = f"float32 of shape {tuple(tensor.shape)}"
            return f"{key} must be {wanted}, got {value.dtype} of shape {value.shape}"
        if not np.isfinite(value).all():
            return f"{key} holds NaN or infinity"
    return None
