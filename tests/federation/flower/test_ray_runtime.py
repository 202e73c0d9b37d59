import importlib.util
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.quadratic_clients import SECRET, entries
from helpers.ray_clients_by_name import INTERRUPTED, run_named
from pkgllm.errors import ConfigError, FederationError
from pkgllm.federation.flower.ray.runtime import RayResources, check_ray
from pkgllm.federation.rounds import RoundRecord

# Not imported here: Ray reads its variables when it is.
pytestmark = [
    pytest.mark.usefixtures("ray_alone"),
    pytest.mark.skipif(
        importlib.util.find_spec("ray") is None, reason="needs the extra pkgllm[ray]"
    ),
]

TESTS = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Where nobody else's Ray leaves anything; short, or the runtime would choose another.

    Pytest's own folder, ``tmp_path``, must be there before.
    """
    with tempfile.TemporaryDirectory(prefix="pk", dir="/tmp", ignore_cleanup_errors=True) as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        monkeypatch.setenv("TMPDIR", folder)
        yield


def left_by_ray() -> set[Path]:
    return set(Path(tempfile.gettempdir()).glob("pkgllm-ray-*"))


def pids(notes: Path) -> dict[str, set[int]]:
    """In which processes each client was trained."""
    found: dict[str, set[int]] = {}
    for note in notes.iterdir():
        client, _, pid = note.name.rpartition("-")
        found.setdefault(client, set()).add(int(pid))
    return found


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def ended(processes: set[int]) -> bool:
    """Say whether processes end soon."""
    deadline = time.monotonic() + 30
    while any(map(alive, processes)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return not any(map(alive, processes))


@pytest.mark.slow
def test_failing_and_dying_clients_are_left_out_and_the_others_are_averaged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before, handler = left_by_ray(), signal.getsignal(signal.SIGTERM)
    rounds: list[RoundRecord] = []
    targets = {"a": 1.0, "b": 2.0, "c": 3.0, "dies": 50.0, "raises": 70.0, "z": 6.0}
    with caplog.at_level(logging.WARNING, "pkgllm"):
        adapter = run_named(targets, tmp_path, on_round=rounds.append)
    # The good ones' mean target is 3; half the way to it in each round: 1.5, then 2.25.
    assert entries(adapter) == {2.25}
    assert [set(record.failed) for record in rounds] == [{"dies", "raises"}] * 2
    for record in rounds:
        assert record.failed["dies"].startswith("no reply through Ray: Actor")
        assert record.failed["raises"] == "client raises raised ValueError"
    # What an actor says of a failure is told here, and its file is gone.
    assert f"client raises failed: ValueError: {SECRET}" in caplog.messages
    assert not (tmp_path / "clients.log").exists()
    processes = pids(tmp_path)
    assert os.getpid() not in set().union(*processes.values())
    # Both attempts of both rounds killed an actor; every actor built its clients once.
    assert len(processes["dies"]) == 4
    assert len(processes.pop("built")) <= 2 + 4
    assert ended(set().union(*processes.values()))
    assert left_by_ray() == before
    assert signal.getsignal(signal.SIGTERM) is handler


@pytest.mark.slow
def test_what_the_server_raises_is_raised_here(tmp_path: Path) -> None:
    def refuse(record: RoundRecord) -> None:
        raise FederationError(f"enough after round {record.round_num}")

    before = left_by_ray()
    with pytest.raises(FederationError, match=r"^enough after round 1$"):
        run_named({"a": 1.0}, tmp_path, on_round=refuse)
    assert left_by_ray() == before


@pytest.mark.slow
def test_clients_that_cannot_be_built_end_the_run_with_the_type_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        caplog.at_level(logging.WARNING, "pkgllm"),
        pytest.raises(FederationError, match="first error: client number 0 raised ValueError") as e,
    ):
        run_named({"a": 1.0}, tmp_path, building_fails=True)
    assert SECRET not in str(e.value)
    assert f"client number 0 failed: ValueError: {SECRET}" in caplog.messages


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, INTERRUPTED), (signal.SIGTERM, -signal.SIGTERM)]
)
def test_a_signal_ends_server_and_clients(tmp_path: Path, number: int, code: int) -> None:
    before, notes = left_by_ray(), tmp_path / "notes"
    notes.mkdir()
    with subprocess.Popen(
        [sys.executable, "-m", "helpers.ray_clients_by_name", str(notes)],
        cwd=TESTS,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            deadline = time.monotonic() + 240
            while not list(notes.glob("sleeps-*")):
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.1)
            process.send_signal(number)
            process.communicate(timeout=180)
        finally:
            process.kill()
    assert process.returncode == code
    assert ended(set().union(*pids(notes).values()))
    assert left_by_ray() == before


@pytest.mark.slow
def test_a_client_that_fits_nowhere_is_refused(tmp_path: Path) -> None:
    resources = RayResources(cpus_per_client=4.0, cpus=1)
    with pytest.raises(ConfigError, match=r"cpus_per_client 4 .* no machine .*: 1 CPUs and"):
        run_named({"a": 1.0}, tmp_path, resources=resources)


def test_totals_are_refused_where_ray_runs_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "192.0.2.1:6379")
    with pytest.raises(ConfigError, match="RAY_ADDRESS names one that runs already"):
        run_named({"a": 1.0}, tmp_path)


def test_without_ray_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"install pkgllm\[ray\]"):
        check_ray()
