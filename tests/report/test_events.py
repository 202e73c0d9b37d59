import math
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pkgllm.errors import RunError
from pkgllm.runs.events import EVENT_FILE, Step, append_event, crc32c, write_events


def read(folder: Path) -> dict[str, list[tuple[float, int, float]]]:
    """What TensorBoard itself finds, by tag: time, step and value."""
    found = EventAccumulator(str(folder))
    found.Reload()
    return {
        tag: [(event.wall_time, event.step, event.value) for event in found.Scalars(tag)]
        for tag in found.Tags()["scalars"]
    }


def single(value: float) -> float:
    return struct.unpack("<f", struct.pack("<f", value))[0]  # type: ignore[no-any-return]


def test_the_checksum_is_that_of_the_standard() -> None:
    # RFC 3720, B.4: 32 bytes of zeros, of ones, and counting up.
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E


def test_tensorboard_reads_what_was_written_and_what_was_added(tmp_path: Path) -> None:
    write_events(tmp_path / "tb", [Step(1, 100.5, {"training/loss": 0.5, "validation/mrr": 0.25})])
    append_event(tmp_path / "tb", Step(2, 101.5, {"training/loss": -0.125}))
    assert read(tmp_path / "tb") == {
        "training/loss": [(100.5, 1, 0.5), (101.5, 2, -0.125)],
        "validation/mrr": [(100.5, 1, 0.25)],
    }


scalars = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=200),
    st.floats(allow_nan=False, allow_infinity=False, min_value=-3e38, max_value=3e38),
    max_size=3,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 2**62), st.floats(0, 4e9), scalars),
        min_size=1,
        max_size=4,
        unique_by=lambda step: step[0],
    )
)
def test_tensorboard_reads_any_step(
    tmp_path: Path, parts: list[tuple[int, float, dict[str, float]]]
) -> None:
    steps = [Step(*part) for part in sorted(parts, key=lambda part: part[0])]
    write_events(tmp_path, steps[:1])
    for step in steps[1:]:
        append_event(tmp_path, step)
    expected: dict[str, list[tuple[float, int, float]]] = {}
    for step in steps:
        for tag, value in step.scalars.items():
            expected.setdefault(tag, []).append((step.time, step.step, single(value)))
    assert read(tmp_path) == expected


def test_what_single_precision_cannot_hold_becomes_infinite(tmp_path: Path) -> None:
    write_events(tmp_path, [Step(1, 0.0, {"a": 1e300, "b": -1e300, "c": 1e-300})])
    assert {tag: found[0][2] for tag, found in read(tmp_path).items()} == {
        "a": math.inf,
        "b": -math.inf,
        "c": 0.0,
    }


def test_a_torn_event_costs_that_event_only(tmp_path: Path) -> None:
    write_events(tmp_path, [Step(1, 1.0, {"a": 1.0}), Step(2, 2.0, {"a": 2.0})])
    path = tmp_path / EVENT_FILE
    path.write_bytes(path.read_bytes()[:-3])
    assert read(tmp_path) == {"a": [(1.0, 1, 1.0)]}


def test_writing_anew_replaces_what_stood_there(tmp_path: Path) -> None:
    for _ in range(2):
        write_events(tmp_path, [Step(1, 1.0, {"a": 1.0})])
    assert read(tmp_path) == {"a": [(1.0, 1, 1.0)]}
    assert [path.name for path in tmp_path.iterdir()] == [EVENT_FILE]


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "tb").touch()
    with pytest.raises(RunError, match=r"^cannot make the folder .*/tb: File exists; a file"):
        write_events(tmp_path / "tb", [])
    with pytest.raises(RunError, match=r"^cannot write .*/tb/events\.out\.tfevents"):
        append_event(tmp_path / "tb", Step(1, 0.0, {}))
