import os
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pkgllm.errors import RunError
from pkgllm.runs.checkpoints import GROWING, Checkpoints
from pkgllm.runs.folder import RunFolder

SECTIONS = {
    "adapter": {"layer.b": torch.tensor([[1.5, -0.0]]), "layer.a": torch.tensor([float("nan")])},
    "strategy": {"rounds": torch.tensor(7), "empty": torch.zeros(0, 3)},
}


def same(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and one.numpy().tobytes() == other.numpy().tobytes()


def test_a_checkpoint_comes_back_to_the_bit(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=1)
    assert checkpoints.newest() is None
    checkpoints.write(3, SECTIONS)
    found = checkpoints.newest()
    assert found is not None
    assert found.position == 3
    assert list(found.section("adapter")) == ["layer.a", "layer.b"]
    assert found.section("nothing") == {}
    for name, section in SECTIONS.items():
        for key, value in section.items():
            assert same(found.section(name)[key], value)


@given(keep=st.integers(1, 4), last=st.integers(1, 12))
def test_the_newest_so_many_stay(
    tmp_path_factory: pytest.TempPathFactory, keep: int, last: int
) -> None:
    run = tmp_path_factory.mktemp("run")
    checkpoints = Checkpoints(run, keep=keep)
    for position in range(1, last + 1):
        checkpoints.write(position, SECTIONS)
    stems = sorted(int(path.stem) for path in (run / "checkpoints").iterdir())
    assert stems == list(range(max(1, last - keep + 1), last + 1))


@given(position=st.integers(0, 10**6 - 1), flips=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_no_damage_goes_unseen(
    tmp_path_factory: pytest.TempPathFactory, position: int, flips: int, bit: int
) -> None:
    run = tmp_path_factory.mktemp("run")
    checkpoints = Checkpoints(run, keep=2)
    checkpoints.write(position, SECTIONS)
    (path,) = (run / "checkpoints").iterdir()
    content = bytearray(path.read_bytes())
    content[flips % len(content)] ^= 1 << bit
    path.write_bytes(bytes(content))
    found = None
    with suppress(RunError):
        found = checkpoints.newest()
    # A flip in white space or in the order of keys changes nothing that is read.
    if found is not None:
        assert found.position == position
        for name, section in SECTIONS.items():
            for key, value in section.items():
                assert same(found.section(name)[key], value)


def test_damage_alone_is_an_error(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    for position in (1, 2):
        checkpoints.write(position, SECTIONS)
    for path in (tmp_path / "checkpoints").iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(RunError, match=r"no checkpoint can be used \(000002\.safetensors: "):
        checkpoints.newest()


def test_a_file_under_a_name_of_its_own_is_no_checkpoint(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.write(1, SECTIONS)
    (tmp_path / "checkpoints" / "best.safetensors").write_bytes(b"mine")
    checkpoints.write(2, SECTIONS)
    names = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert names == {"000002.safetensors", "best.safetensors"}


def test_growing_files_are_cut_to_what_they_were(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=1)
    metrics, timings = tmp_path / GROWING[0], tmp_path / GROWING[2]
    metrics.write_bytes(b'{"a": 1}\n{"a": 2}\n')
    checkpoints.write(2, SECTIONS)
    metrics.write_bytes(b'{"a": 1}\n{"a": 2}\n{"a": 3}\n{"a"')
    timings.write_bytes(b"{}\n")
    checkpoints.rewind(checkpoints.newest())
    assert metrics.read_bytes() == b'{"a": 1}\n{"a": 2}\n'
    assert not timings.exists()
    checkpoints.rewind(None)
    assert not metrics.exists()


def test_lines_that_are_lost_are_told(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=1)
    (tmp_path / "metrics.jsonl").write_bytes(b"{}\n{}\n")
    checkpoints.write(2, SECTIONS)
    (tmp_path / "metrics.jsonl").write_bytes(b"{}\n{}")
    with pytest.raises(RunError, match=r"must hold the 2 lines .* holds 1"):
        checkpoints.newest()


@given(st.integers(0, 3), st.integers(0, 3))
def test_after_a_power_cut_the_newest_checkpoint_that_fits_serves(
    tmp_path_factory: pytest.TempPathFactory, metrics_left: int, timings_left: int
) -> None:
    run = tmp_path_factory.mktemp("run")
    checkpoints = Checkpoints(run, keep=9)
    for position in range(4):
        for name in GROWING[:1] + GROWING[2:]:
            (run / name).write_bytes(b"{}\n" * position)
        checkpoints.write(position, SECTIONS)
    for name, left in zip(GROWING[:1] + GROWING[2:], (metrics_left, timings_left), strict=True):
        (run / name).write_bytes(b"{}\n" * left + b"{")
    start = checkpoints.newest()
    assert start is not None
    assert start.position == min(metrics_left, timings_left)
    checkpoints.rewind(start)


def test_going_back_forgets_what_came_later(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=9)
    for position in (1, 2, 3):
        (tmp_path / "metrics.jsonl").write_bytes(b"{}\n" * position)
        checkpoints.write(position, SECTIONS)
    with pytest.raises(RunError, match=r"there are those of 3, 2, 1"):
        checkpoints.go_back(4)
    checkpoints.rewind(checkpoints.go_back(1))
    newest = checkpoints.newest()
    assert newest is not None
    assert newest.position == 1
    assert (tmp_path / "metrics.jsonl").read_bytes() == b"{}\n"


def test_lines_and_names_are_on_the_disk_before_the_checkpoint_that_counts_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, synced = RunFolder.create(tmp_path / "run"), list[str]()
    fsync = os.fsync

    def note(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    run.append_metrics({"round_num": 1})
    Checkpoints(run.path, keep=1).write(1, SECTIONS)
    metrics, checkpoint, folder = synced
    assert (metrics, folder) == ("metrics.jsonl", "checkpoints")
    assert checkpoint.startswith(".000001.safetensors.")


def test_refuses_to_keep_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="keep must be at least 1, got 0"):
        Checkpoints(tmp_path, keep=0)


def test_a_checkpoint_is_read_by_its_position_and_may_be_private(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    for position in (3, 8):
        checkpoints.write(position, {"a": {"x": torch.tensor(position)}})
    assert checkpoints.at(3).section("a")["x"] == 3
    files = list((tmp_path / "checkpoints").iterdir())
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    with pytest.raises(RunError, match=r"000004.safetensors: must hold a whole checkpoint"):
        checkpoints.at(4)
    files[0].write_bytes(files[0].read_bytes()[:-1])
    with pytest.raises(RunError, match="cannot be read"):
        checkpoints.at(int(files[0].stem))
