import hashlib
import logging
import multiprocessing
import os
import resource
import signal
import sqlite3
import stat
import struct
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pkgllm.errors import RunError
from pkgllm.training.reference_disk import DiskTier

FORK = multiprocessing.get_context("fork")


def a_key(number: int) -> bytes:
    return hashlib.sha256(number.to_bytes(4, "little")).digest()


def some_values(start: int, stop: int) -> dict[bytes, float]:
    return {a_key(number): -0.25 * number for number in range(start, stop)}


VALUES = some_values(0, 200)
MANY = some_values(1000, 3000)
KILLED = -signal.SIGXFSZ


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def journal_of(path: Path) -> Path:
    return path.with_name(f"{path.name}-journal")


def with_small_files_only(largest: int, on_excess: signal.Handlers, act: Callable[[], None]) -> int:
    """Act in a process whose files cannot grow beyond some bytes, and return its exit code.

    By default the kernel kills such a process in the middle of the system call.
    """

    def child() -> None:
        signal.signal(signal.SIGXFSZ, on_excess)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
        act()

    process = FORK.Process(target=child)
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def test_a_file_is_made_by_the_first_write(tmp_path: Path) -> None:
    tier = DiskTier(tmp_path / "r")
    assert tier.read([a_key(1)]) == {}
    assert list(tmp_path.iterdir()) == []
    tier.write(some_values(0, 3))
    assert tier.read([a_key(1), a_key(7), a_key(2)]) == some_values(1, 3)
    assert [path.name for path in tmp_path.iterdir()] == ["r"]


def test_reads_more_keys_than_one_query_takes(tmp_path: Path) -> None:
    DiskTier(tmp_path / "r").write(some_values(0, 1700))
    found = DiskTier(tmp_path / "r").read([a_key(number) for number in range(3000)])
    assert found == some_values(0, 1700)


@given(
    st.lists(st.integers(0, 2**32 - 1).map(lambda bits: struct.pack("<I", bits)), max_size=40).map(
        lambda found: [*found, b"\0\0\0\0", b"\0\0\0\x80", b"\1\0\0\0", b"\0\0\x80\xff"]
    )
)
@settings(deadline=None, max_examples=30)
def test_every_float32_comes_back_bit_by_bit(patterns: list[bytes]) -> None:
    # A signalling NaN becomes a quiet one in Python itself.
    values = {a_key(n): struct.unpack("<f", bits)[0] for n, bits in enumerate(patterns)}
    with TemporaryDirectory() as folder:
        tier = DiskTier(Path(folder) / "r")
        tier.write(values)
        found = tier.read(list(values))
    assert {key: struct.pack("<f", value) for key, value in found.items()} == {
        key: struct.pack("<f", value) for key, value in values.items()
    }


def test_only_the_owner_may_read_it_from_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = os.umask(0)
    try:
        tier, path = DiskTier(tmp_path / "r"), tmp_path / "r"
        with monkeypatch.context() as nothing_mends_it:
            nothing_mends_it.setattr(Path, "chmod", lambda *_: None)
            tier.write(some_values(0, 2))
        assert mode(path) == 0o600
        # A copy may have come with other rights.
        path.chmod(0o644)
        tier.read([a_key(1)])
        assert mode(path) == 0o600
        assert with_small_files_only(60_000, signal.SIG_DFL, lambda: tier.write(MANY)) == KILLED
        assert mode(path) == mode(journal_of(path)) == 0o600
    finally:
        os.umask(before)


@pytest.mark.parametrize("largest", [0, 512, 4096, 10_000, 16_384, 50_000, 70_000, 90_000, 110_000])
def test_a_process_killed_while_writing_leaves_nothing_of_that_write(
    tmp_path: Path, largest: int, caplog: pytest.LogCaptureFixture
) -> None:
    path, earlier = tmp_path / "r", {}
    if largest > 16_384:
        earlier = VALUES
        DiskTier(path).write(earlier)
    assert with_small_files_only(largest, signal.SIG_DFL, lambda: DiskTier(path).write(MANY)) == (
        KILLED
    )
    tier = DiskTier(path)
    assert tier.read([*earlier, *MANY]) == earlier
    tier.write(MANY)
    assert tier.read([*earlier, *MANY]) == earlier | MANY
    # It was mended, not begun anew.
    assert caplog.messages == []


@st.composite
def damage(draw: st.DrawFn) -> Callable[[bytearray], None]:
    """Something that befalls the bytes of a file."""
    kind = draw(st.sampled_from(["flipped", "header", "torn", "shortened", "replaced"]))
    share = draw(st.floats(0, 1, exclude_max=True))
    noise = draw(st.binary(min_size=1, max_size=12))
    shares = draw(st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=12))

    def act(content: bytearray) -> None:
        # The first 140 bytes describe the file and its first page.
        end = 140 if kind == "header" else len(content)
        start = int(share * len(content))
        if kind in ("flipped", "header"):
            for byte, place in zip(noise * 12, shares, strict=False):
                content[int(place * end)] = byte
        elif kind == "torn":
            sector = start // 512 * 512
            other = int(shares[0] * len(content)) // 512 * 512
            content[sector : sector + 512] = content[other : other + 512]
        elif kind == "shortened":
            del content[start:]
        else:
            content[start : start + len(noise) * 50] = noise * 50

    return act


@given(damage())
@settings(deadline=None, max_examples=150)
def test_a_damaged_file_never_returns_another_value(act: Callable[[bytearray], None]) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "r"
        DiskTier(path).write(VALUES)
        content = bytearray(path.read_bytes())
        act(content)
        path.write_bytes(content)
        tier = DiskTier(path)
        assert tier.read(list(VALUES)).items() <= VALUES.items()
        more = some_values(1000, 1020)
        tier.write(more)
        assert tier.read([*VALUES, *more]).items() <= (VALUES | more).items()


def test_a_number_where_an_entry_was_is_damage(tmp_path: Path) -> None:
    for wrong in (-0.25, "text", b"", b"\0" * 8):
        path = tmp_path / "r"
        DiskTier(path).write(VALUES)
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE reference SET entry = ? WHERE key = ?", (wrong, a_key(1)))
        connection.close()
        tier = DiskTier(path)
        assert tier.read([a_key(0)]) == {a_key(0): 0.0}
        assert tier.read([a_key(0), a_key(1)]) == {}
        assert not path.exists()


def test_a_value_of_another_key_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "r"
    DiskTier(path).write(VALUES)
    with sqlite3.connect(path) as connection:
        swap = "UPDATE reference SET entry = (SELECT entry FROM reference WHERE key = ?)"
        connection.execute(f"{swap} WHERE key = ?", (a_key(1), a_key(2)))
    connection.close()
    assert DiskTier(path).read([a_key(2)]) == {}


@pytest.mark.parametrize(
    "content",
    [b"no database at all, but text of a hundred bytes" * 3, b"SQLite format 3\0" + bytes(84)],
)
def test_a_damaged_file_is_begun_anew_and_the_log_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    path = tmp_path / "r"
    tier = DiskTier(path)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            path.write_bytes(content)
            journal_of(path).write_bytes(b"left behind")
            assert tier.read([a_key(1)]) == {}
            assert not path.exists()
            tier.write(VALUES)
            assert tier.read(list(VALUES)) == VALUES
            assert list(tmp_path.iterdir()) == [path]
    (message,) = caplog.messages
    assert message.startswith(f"reference cache {path}: damaged, so deleted and begun anew: SQLITE")


def test_the_journal_of_a_lost_file_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "r"
    tier = DiskTier(path)
    tier.write(VALUES)
    assert with_small_files_only(60_000, signal.SIG_DFL, lambda: tier.write(MANY)) == KILLED
    assert journal_of(path).stat().st_size > 0
    path.unlink()
    assert tier.read([*VALUES, *MANY]) == {}
    other = some_values(5000, 5100)
    tier.write(other)
    assert tier.read([*VALUES, *MANY, *other]) == other
    assert list(tmp_path.iterdir()) == [path]


def test_a_table_of_another_form_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "r"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE reference (key BLOB PRIMARY KEY, value REAL)")
    connection.close()
    tier = DiskTier(path)
    assert tier.read([a_key(1)]) == {}
    tier.write(VALUES)
    assert tier.read(list(VALUES)) == VALUES


def test_what_the_place_is_to_blame_for_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"cannot write .*/none/r: No such file.*make its folder"):
        DiskTier(tmp_path / "none" / "r").write(VALUES)
    (tmp_path / "folder").mkdir()
    with pytest.raises(RunError, match=r"cannot use the reference cache .*/folder: unable to open"):
        DiskTier(tmp_path / "folder").read([a_key(1)])
    assert (tmp_path / "folder").is_dir()


def test_a_full_disk_is_an_error_and_harms_nothing(tmp_path: Path) -> None:
    tier = DiskTier(tmp_path / "r")
    tier.write(VALUES)
    says = tmp_path / "says"

    def write() -> None:
        try:
            tier.write(MANY)
        except RunError as error:
            says.write_text(str(error))

    assert with_small_files_only(60_000, signal.SIG_IGN, write) == 0
    assert says.read_text().startswith(f"cannot use the reference cache {tmp_path / 'r'}: ")
    assert "see that its disk has space" in says.read_text()
    assert tier.read([*VALUES, *MANY]) == VALUES


@pytest.mark.slow
def test_a_file_that_another_run_is_writing_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "r"
    tier = DiskTier(path)
    tier.write(VALUES)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(RunError, match=r"database is locked.*no other run uses its folder"):
        tier.read([a_key(1)])
    other.close()
    assert tier.read(list(VALUES)) == VALUES
