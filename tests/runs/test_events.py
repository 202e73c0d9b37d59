import builtins
import math
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pkgllm.errors import RunError
from pkgllm.runs.events import Step, new_event_file


def write(folder: Path, *steps: Step) -> None:
    """Write the first step at once, and add the others."""
    events = new_event_file(folder, steps[:1])
    assert events is not None
    for step in steps[1:]:
        events.add(step)
    events.close()


def read(folder: Path) -> dict[str, list[tuple[float, int, float]]]:
    """What TensorBoard itself reads, by tag: time, step and value."""
    events = EventAccumulator(str(folder))
    events.Reload()
    return {
        tag: [(event.wall_time, event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def single(value: float) -> float:
    return struct.unpack("<f", struct.pack("<f", value))[0]  # type: ignore[no-any-return]


scalars = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=200),
    st.floats(allow_nan=False, allow_infinity=False, min_value=-3e38, max_value=3e38),
    max_size=3,
)


@pytest.mark.slow
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
    # Each example replaces the file of the one before it.
    steps = [Step(*part) for part in sorted(parts, key=lambda part: part[0])]
    write(tmp_path / "tb", *steps)
    expected: dict[str, list[tuple[float, int, float]]] = {}
    for step in steps:
        for tag, value in step.scalars.items():
            expected.setdefault(tag, []).append((step.time, step.step, single(value)))
    assert read(tmp_path / "tb") == expected
    assert len(list((tmp_path / "tb").iterdir())) == 1


def test_a_step_is_on_the_disk_when_it_is_added(tmp_path: Path) -> None:
    events = new_event_file(tmp_path / "tb")
    assert events is not None
    events.add(Step(1, 1.0, {"a": 1.0, "b": 1e300}))
    assert read(tmp_path / "tb") == {"a": [(1.0, 1, 1.0)], "b": [(1.0, 1, math.inf)]}
    events.close()


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "tb").touch()
    with pytest.raises(RunError, match=r"^cannot write .*/tb: File exists; a file"):
        new_event_file(tmp_path / "tb")


def test_without_tensorboard_a_run_is_told_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real: Callable[..., Any] = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "torch.utils.tensorboard":
            raise ModuleNotFoundError("No module named 'tensorboard'")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    assert new_event_file(tmp_path / "tb", [Step(1, 1.0, {"a": 1.0})]) is None
    (record,) = caplog.records
    assert record.getMessage() == (
        "no files for TensorBoard are written, because its writer is not installed; pip install "
        "'pkgllm[tensorboard]', or set observation.tensorboard=false"
    )
    assert not (tmp_path / "tb").exists()
