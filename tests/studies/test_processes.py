"""Sweeps whose runs have processes of their own give the same files as one process does."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from helpers.run_files import files_below
from helpers.tiny_studies import MakePlan
from pkgllm.errors import StoppedError
from pkgllm.progress import Advance
from pkgllm.studies.sweep import sweep

pytest_plugins = ["helpers.finished_runs", "helpers.tiny_studies"]

SAME = ("metrics.jsonl", "predictions.jsonl", "adapter/adapter_model.safetensors")


class Counted:
    """Lists the units of work that were done."""

    def __init__(self) -> None:
        self.done: list[str] = []

    @contextmanager
    def track(self, description: str, total: int) -> Iterator[Advance]:
        """Write down every unit."""

        def advance(detail: str = "") -> None:
            self.done.append(f"{description} of {total}")

        yield advance


@pytest.mark.slow
def test_runs_side_by_side_give_the_same_as_one_after_the_other(
    make_plan: MakePlan, tmp_path: Path
) -> None:
    plan, progress, lines = make_plan(), Counted(), list[str]()
    sweep(plan, tmp_path / "alone")
    output = tmp_path / "beside"
    result = sweep(plan, output, progress=progress, log=lines.append, processes=2)
    assert result.failures == {}
    assert lines == ["run 1/2: kto-seed7", "run 2/2: dpo-seed7"]
    assert progress.done == ["runs of 2"] * 2
    for name in ("kto-seed7", "dpo-seed7"):
        alone, beside = (files_below(tmp_path / way / name) for way in ("alone", "beside"))
        assert {file: beside[file] for file in SAME} == {file: alone[file] for file in SAME}
    again = list[str]()
    sweep(plan, output, log=again.append, processes=2)
    assert again == [f"{line}, finished already" for line in lines]


@pytest.mark.slow
def test_a_run_that_fails_says_why_and_the_others_go_on(
    make_plan: MakePlan, tmp_path: Path
) -> None:
    plan = make_plan(
        set=["mode.rounds=1"], grid={"who": {"nobody": ["clients.min_liked=1000"], "all": []}}
    )
    lines = list[str]()
    alone = sweep(plan, tmp_path / "alone")
    beside = sweep(plan, tmp_path / "beside", log=lines.append, processes=2)
    assert list(beside.failures) == ["nobody-seed7"]
    assert beside.failures == alone.failures
    assert f"run 1/2: nobody-seed7 failed: {beside.failures['nobody-seed7']}" in lines
    assert (tmp_path / "beside/all-seed7/results.json").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("times", [1, 2])
def test_a_stop_ends_all_runs_and_the_same_command_goes_on(
    make_plan: MakePlan, tmp_path: Path, times: int
) -> None:
    # Long enough that neither is finished before both are in their rounds.
    plan, output = make_plan(set=["mode.rounds=300"]), tmp_path / "out"
    metrics = [output / f"{name}-seed7" / "metrics.jsonl" for name in ("kto", "dpo")]

    def ask() -> None:
        until = time.monotonic() + 120
        while time.monotonic() < until and not all(path.exists() for path in metrics):
            time.sleep(0.05)
        for _ in range(times):
            signal.raise_signal(signal.SIGINT)
            time.sleep(0.3)

    asking = threading.Thread(target=ask)
    asking.start()
    with pytest.raises(StoppedError, match=r"stopped at run 1/2: kto-seed7; go on with: pkgllm sw"):
        sweep(plan, output, processes=2)
    asking.join()
    assert not list(output.glob("*/results.json"))
    rounds = [len(path.read_text().splitlines()) for path in metrics]
    assert all(0 < number < 300 for number in rounds)
    # No process works in the folders any more.
    with pytest.raises(StoppedError):
        sweep(plan, output, progress=Impatient())
    assert len(metrics[0].read_text().splitlines()) >= rounds[0]


class Impatient:
    """Asks to stop as soon as a run goes on."""

    @contextmanager
    def track(self, description: str, total: int) -> Iterator[Advance]:
        """Ask at the first unit."""

        def advance(detail: str = "") -> None:
            signal.raise_signal(signal.SIGINT)

        yield advance


@pytest.mark.slow
def test_an_error_of_the_caller_leaves_no_process_behind(
    make_plan: MakePlan, tmp_path: Path
) -> None:
    def fail_at_the_second(line: str) -> None:
        if "run 2/2" in line:
            raise OSError("the reader is gone")

    output = tmp_path / "out"
    with pytest.raises(OSError, match="the reader is gone"):
        sweep(make_plan(set=["mode.rounds=300"]), output, log=fail_at_the_second, processes=2)
    assert not any(str(output).encode() in command for command in commands())


def commands() -> Iterator[bytes]:
    """What every process of this machine was called with."""
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            yield place.read_bytes()
