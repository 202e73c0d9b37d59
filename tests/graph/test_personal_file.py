import fcntl
import subprocess
import sys
from datetime import UTC, datetime
from io import BufferedWriter
from pathlib import Path

import pytest

from pkgllm.errors import DataError, RunError
from pkgllm.graph.personal_file import change, create
from pkgllm.graph.personal_graph import Provenance
from pkgllm.graph.personal_record import PersonalRecord, Verdict
from pkgllm.graph.rdf import read_record

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
OWN = Provenance("own_edit", "edit/1")

# Likes twenty films one by one, each in a change of its own.
WRITER = """
import sys
from datetime import UTC, datetime
from io import BufferedWriter
from pathlib import Path
from pkgllm.graph.personal_file import change
from pkgllm.graph.personal_graph import Provenance
from pkgllm.graph.personal_record import Verdict

path, who = Path(sys.argv[1]), sys.argv[2]
said = Provenance("own_edit", who)
print("ready", flush=True)
sys.stdin.readline()
for number in range(20):
    verdict = Verdict("liked", f"{who}{number}", f"Film {who}{number}")
    change(
        path,
        lambda record: record.edited("like", datetime.now(UTC), said, verdicts=[verdict]),
        patience=60,
    )
"""


def like(record: PersonalRecord) -> PersonalRecord:
    return record.edited("like", NOON, OWN, verdicts=[Verdict("liked", "1", "Film 1")])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "me.jsonld"
    create(path, "me")
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_change_is_written_and_leaves_nothing_beside_the_file(file: Path) -> None:
    before, after = change(file, like)
    assert read_record(file) == after
    assert (len(before.graph.facts), len(after.graph.facts)) == (0, 1)
    assert names(file.parent) == ["me.jsonld"]


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640])
def test_what_its_owner_alone_may_read_stays_so(file: Path, mode: int) -> None:
    file.chmod(mode)
    change(file, like)
    assert (file.stat().st_mode & 0o077 == 0) == (mode != 0o640)
    assert len(read_record(file).graph.facts) == 1


def test_a_new_one_is_read_by_its_owner_alone(file: Path) -> None:
    assert file.stat().st_mode & 0o777 == 0o600


def test_what_changes_nothing_is_not_written(file: Path) -> None:
    change(file, like)
    stamp = file.stat().st_mtime_ns, file.stat().st_ino
    change(file, like)
    assert (file.stat().st_mtime_ns, file.stat().st_ino) == stamp


def test_a_change_that_fails_leaves_the_file_as_it_was(file: Path) -> None:
    text = file.read_bytes()

    def fail(record: PersonalRecord) -> PersonalRecord:
        raise DataError("no")

    with pytest.raises(DataError, match="no"):
        change(file, fail)
    assert file.read_bytes() == text
    assert names(file.parent) == ["me.jsonld"]


def test_a_link_stays_a_link_to_the_changed_file(file: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.jsonld"
    link.symlink_to(file)
    _, after = change(link, like)
    assert link.is_symlink()
    assert read_record(file) == after


def test_a_file_that_is_not_there_and_one_that_is(file: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such file; make .*pkgllm pkg new .*other.jsonld"):
        change(tmp_path / "other.jsonld", like)
    with pytest.raises(DataError, match=r"me.jsonld: exists already"):
        create(file, "me")
    with pytest.raises(DataError, match=r"me.txt: a graph's file must end in"):
        create(tmp_path / "me.txt", "me")


def test_who_waits_too_long_is_told_and_nothing_is_lost(file: Path) -> None:
    text = file.read_bytes()
    with file.with_name(".me.jsonld.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(RunError, match=r"another process is changing it, .*within 0.2 s"):
            change(file, like, patience=0.2)
    assert file.read_bytes() == text
    change(file, like)
    assert names(file.parent) == ["me.jsonld"]


@pytest.mark.slow
def test_of_two_processes_that_write_at_once_nothing_is_lost(file: Path) -> None:
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(file), who],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for who in "ab"
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write(b"\n")
        writer.stdin.close()
    for writer in writers:
        assert writer.wait(timeout=120) == 0
        assert writer.stdout is not None
        writer.stdout.close()
    record = read_record(file)
    assert record.graph.tails == {f"{who}{number}" for who in "ab" for number in range(20)}
    assert [edit.number for edit in record.edits] == list(range(1, 41))
    assert names(file.parent) == ["me.jsonld"]


def test_a_lock_whose_name_another_process_took_away_does_not_count(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take, taken = fcntl.flock, []

    def flock(lock: BufferedWriter, operation: int) -> None:
        take(lock, operation)
        taken.append(lock.name)
        if len(taken) == 1:
            # As who held it before does when it is done.
            Path(lock.name).unlink()

    monkeypatch.setattr(fcntl, "flock", flock)
    change(file, like)
    assert len(taken) == 2
