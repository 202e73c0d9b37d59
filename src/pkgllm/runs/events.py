"""Scalars in TensorBoard's own file form, written without TensorBoard or TensorFlow.

An event file is a row of records (TFRecord): the length of the data as 8 bytes, its masked CRC-32C,
the data, their masked CRC-32C, all little-endian. The data are an ``Event`` in the wire form of
protocol buffers. Sources: ``tensorflow/core/lib/io/record_writer.h`` and
``tensorboard/compat/proto/event.proto`` and ``summary.proto``; CRC-32C is that of RFC 3720, B.4.
"""

import math
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pkgllm.files import cannot, write_atomically

EVENT_FILE = "events.out.tfevents.0.pkgllm"
"""TensorBoard knows its files by the third word, and reads them in order of their names."""

_CASTAGNOLI = 0x82F63B78


@dataclass(frozen=True, slots=True)
class Step:
    """What is drawn at one place of the horizontal axis."""

    step: int
    """The round."""
    time: float
    """When it was measured, seconds since 1970."""
    scalars: Mapping[str, float]
    """By tag; a tag is cut into groups at its slashes."""


def write_events(folder: Path, steps: Iterable[Step]) -> None:
    """Write a whole event file, in place of what stood there.

    Raises:
        RunError: If it cannot be written; what stood there before is unharmed.
    """
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise cannot("make the folder", folder, error) from error
    start = _record(_double(1, 0.0) + _bytes(3, b"brain.Event:2"))
    write_atomically(folder / EVENT_FILE, start + b"".join(map(_event, steps)))


def append_event(folder: Path, step: Step) -> None:
    """Add to a file of :func:`write_events`; TensorBoard passes over what a crash leaves of it.

    Raises:
        RunError: If it cannot be written.
    """
    path = folder / EVENT_FILE
    try:
        with path.open("ab", buffering=0) as file:
            data = _event(step)
            while data:
                data = data[file.write(data) :]
    except OSError as error:
        raise cannot("write", path, error) from error


def _event(step: Step) -> bytes:
    values = b"".join(
        _bytes(1, _bytes(1, tag.encode("utf-8", "replace")) + _float(2, value))
        for tag, value in step.scalars.items()
    )
    return _record(_double(1, step.time) + _varint(2 << 3) + _varint(step.step) + _bytes(5, values))


def _record(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return length + _masked(length) + data + _masked(data)


def _masked(data: bytes) -> bytes:
    found = crc32c(data)
    return struct.pack("<I", (((found >> 15) | (found << 17)) + 0xA282EAD8) & 0xFFFFFFFF)


def crc32c(data: bytes) -> int:
    """Return the CRC-32C checksum.

    Example:
        >>> hex(crc32c(b"123456789"))
        '0xe3069283'
    """
    found, table = 0xFFFFFFFF, _table()
    for byte in data:
        found = table[(found ^ byte) & 0xFF] ^ (found >> 8)
    return found ^ 0xFFFFFFFF


@cache
def _table() -> tuple[int, ...]:
    entries = []
    for entry in range(256):
        for _ in range(8):
            entry = (entry >> 1) ^ (_CASTAGNOLI if entry & 1 else 0)
        entries.append(entry)
    return tuple(entries)


def _varint(number: int) -> bytes:
    number &= 2**64 - 1
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)


def _double(field: int, value: float) -> bytes:
    return _varint(field << 3 | 1) + struct.pack("<d", value)


def _float(field: int, value: float) -> bytes:
    # What is beyond single precision becomes infinite; pack would refuse it.
    largest = struct.unpack("<f", b"\xff\xff\x7f\x7f")[0]
    kept = value if abs(value) <= largest else math.copysign(math.inf, value)
    return _varint(field << 3 | 5) + struct.pack("<f", kept)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value
