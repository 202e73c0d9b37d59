"""Sweeps whose runs have processes of their own: they come to what one process comes to."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from helpers.run_files import files_below
from helpers.tiny_corpus import tiny_experiment
from pkgllm.config.load import dump_config
from pkgllm.config.study_runs import Plan, load_study
from pkgllm.errors import StoppedError
from pkgllm.progress import Advance, Silent
from pkgllm.studies.sweep import sweep

pytest_plugins = ["helpers.finished_runs"]

SAME = ("metrics.jsonl", "predictions.jsonl", "adapter/adapter_model.safetensors")


@pytest.fixture
def make_plan(tmp_path: Path, data: Path, tiny_base_folder: Path) -> Callable[..., Plan]:
    (tmp_path / "base.yaml").write_text(dump_config(tiny_experiment(data, tiny_base_folder)))

    def make(*settings: str, **changes: Any) -> Plan:
        study = {
            "base": str(tmp_path / "base.yaml"),
            "set": list(settings),
            "grid": {"objective": {"kto": [], "dpo": ["objective={name: dpo}"]}},
            "seeds": [7],
            **changes,
        }
        (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
        return load_study(str(tmp_path / "tiny.yaml"))

    return make


def quiet(line: str) -> None: ...


class Counted:
    """Says how many units of work were done."""

    def __init__(self) -> None:
        self.done: list[str] = []

    @contextmanager
    def track(self, description: str, total: int) -> Iterator[Advance]:
        """Write down every unit."""

        def advance(detail: str = "") -> None:
            self.done.append(f"{description} of {total}")

        yield advance


@pytest.mark.slow
def test_runs_side_by_side_come_to_the_same_as_one_after_the_other(
    make_plan: Callable[..., Plan], tmp_path: Path
) -> None:
    plan = make_plan("mode.rounds=2")
    progress, told = Counted(), list[str]()
    sweep(plan, tmp_path / "alone", Silent(), quiet)
    swept = sweep(plan, tmp_path / "beside", progress, told.append, processes=2)
    assert swept.failures == {}
    assert told == ["run 1/2: kto-seed7", "run 2/2: dpo-seed7"]
    assert progress.done == ["runs of 2"] * 2
    for name in ("kto-seed7", "dpo-seed7"):
        alone, beside = (files_below(tmp_path / way / name) for way in ("alone", "beside"))
        assert {file: beside[file] for file in SAME} == {file: alone[file] for file in SAME}
    told.clear()
    sweep(plan, tmp_path / "beside", Silent(), told.append, processes=2)
    assert told == [f"run {n}/2: {o}-seed7, finished already" for n, o in ((1, "kto"), (2, "dpo"))]


@pytest.mark.slow
def test_a_run_that_fails_says_why_and_the_others_go_on(
    make_plan: Callable[..., Plan], tmp_path: Path
) -> None:
    nobody = {"nobody": ["clients.min_liked=1000"], "all": []}
    plan = make_plan("mode.rounds=1", grid={"who": nobody})
    told: list[str] = []
    alone = sweep(plan, tmp_path / "alone", Silent(), quiet)
    swept = sweep(plan, tmp_path / "beside", Silent(), told.append, processes=2)
    assert list(swept.failures) == ["nobody-seed7"]
    assert swept.failures == alone.failures
    assert f"run 1/2: nobody-seed7 failed: {swept.failures['nobody-seed7']}" in told
    assert (tmp_path / "beside/all-seed7/results.json").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("times", [1, 2])
def test_who_asks_to_stop_is_heard_and_the_same_command_goes_on(
    make_plan: Callable[..., Plan], tmp_path: Path, times: int
) -> None:
    # Long enough that nobody is done before both are in their rounds.
    plan, output = make_plan("mode.rounds=300"), tmp_path / "out"
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
        sweep(plan, output, Silent(), quiet, processes=2)
    asking.join()
    assert not list(output.glob("*/results.json"))
    rounds = [len(path.read_text().splitlines()) for path in metrics]
    assert all(0 < number < 300 for number in rounds)
    # Nobody works in the folders any more.
    with pytest.raises(StoppedError):
        sweep(plan, output, Impatient(), quiet)
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
def test_what_goes_wrong_here_leaves_no_process_behind(
    make_plan: Callable[..., Plan], tmp_path: Path
) -> None:
    def fail_at_the_second(line: str) -> None:
        if "run 2/2" in line:
            raise OSError("nobody reads this any more")

    output = tmp_path / "out"
    with pytest.raises(OSError, match="nobody reads"):
        sweep(make_plan("mode.rounds=300"), output, Silent(), fail_at_the_second, processes=2)
    assert not any(str(output).encode() in command for command in commands())


def commands() -> Iterator[bytes]:
    """What every process of this machine was called with."""
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            yield place.read_bytes()
