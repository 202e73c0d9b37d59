"""Runs that are killed, stopped or fail, and go on as if nothing had been."""

import json
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from helpers.killed_runs import run_until_killed
from helpers.tiny_corpus import tiny_experiment
from pkgllm.config.schema import Experiment
from pkgllm.errors import ConfigError, DataError, ModelError, RunError, StoppedError
from pkgllm.pipeline.train import resume, train
from pkgllm.progress import Advance, Silent
from pkgllm.runs.folder import RunFolder

pytest_plugins = ["helpers.finished_runs"]

FEDERATED: dict[str, Any] = {"name": "federated", "rounds": 4, "cohort_size": 3}
MODES = {
    "federated": FEDERATED,
    "scaffold": FEDERATED | {"strategy": {"name": "scaffold"}},
    "fedadam": FEDERATED | {"strategy": {"name": "fedadam"}},
    "fedavgm": FEDERATED | {"strategy": {"name": "fedavgm"}},
    "centralized": {"name": "centralized", "rounds": 4},
    "local": {"name": "local", "rounds": 3},
    "public baseline": FEDERATED,
}
OBJECTIVES = {"public baseline": {"name": "kto", "kl_baseline": "public", "nll_weight": 0.5}}
SAME = ("config.yaml", "split.json", "metrics.jsonl", "predictions.jsonl", "results.json")

Whole = Callable[[str], tuple[Experiment, Path]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, data: Path, tiny_base_folder: Path) -> Whole:
    """A run that nobody stopped, in a mode."""

    @cache
    def run(mode: str) -> tuple[Experiment, Path]:
        training = {"optimizer": "sgd"} if mode == "scaffold" else {}
        config = tiny_experiment(
            data,
            tiny_base_folder,
            mode=MODES[mode],
            training=training,
            objective=OBJECTIVES.get(mode, {}),
        )
        path = tmp_path_factory.mktemp("whole") / mode
        train(config, path, Silent(), keep=1)
        return config, path

    return run


def content(run: Path) -> dict[str, bytes]:
    """What a run found, by the name of the file."""
    files = [run / name for name in SAME]
    for folder in ("adapter", "adapters", "checkpoints"):
        files += sorted((run / folder).rglob("*.*"))
    return {str(file.relative_to(run)): file.read_bytes() for file in files}


def private_or_unfinished(run: Path) -> list[str]:
    """Files that a finished run must not hold."""
    names = [path.name for path in run.rglob("*")]
    return [name for name in names if name.startswith(".") or name.endswith((".arrow", ".sqlite"))]


STRATEGIES = ("federated", "scaffold", "fedadam", "fedavgm")
# Of each an even number, which is killed in calls, and an odd one, which is killed by the clock.
INSTANTS = [(STRATEGIES[number // 2], number) for number in range(8)] + [
    (mode, number) for mode in ("centralized", "local", "public baseline") for number in range(2)
]


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "number"), INSTANTS)
def test_a_run_that_is_killed_again_and_again_ends_in_the_same_bytes(
    whole: Whole, tmp_path: Path, mode: str, number: int
) -> None:
    config, unharmed = whole(mode)
    draw = random.Random(f"{mode} {number}")
    run = tmp_path / "run"
    tree = config.model_dump(mode="json")
    kills = 0
    for attempt in range(4):
        # By the clock anywhere; in a sync or a renaming, in the middle of writing a file.
        instant: float | tuple[str, int] | None = None
        if attempt < 3 and number % 2:
            instant = draw.uniform(0.0, 1.5)
        elif attempt < 3:
            instant = (draw.choice(("fsync", "replace", "rename")), draw.randint(1, 25))
        begun = (run / "config.yaml").exists()
        if not begun:
            shutil.rmtree(run, ignore_errors=True)
        code = run_until_killed(tree, run, resume=begun, instant=instant)
        assert code in (0, -signal.SIGKILL)
        kills += code != 0
        if code == 0:
            break
    assert code == 0
    assert content(run) == content(unharmed)
    assert private_or_unfinished(run) == []


@pytest.mark.slow
def test_the_kills_above_kill(whole: Whole, tmp_path: Path) -> None:
    config, _ = whole("federated")
    tree = config.model_dump(mode="json")
    run = tmp_path / "run"
    code = run_until_killed(tree, run, resume=False, instant=("fsync", 8))
    assert code == -signal.SIGKILL
    assert (run / "config.yaml").exists()
    assert not (run / "results.json").exists()


class Stopping:
    """Somebody presses Ctrl-C, or a cluster sends SIGTERM, after some rounds."""

    def __init__(self, number: signal.Signals, after: int) -> None:
        self._number = number
        self._left = after

    @contextmanager
    def track(self, description: str, total: int) -> Iterator[Advance]:
        """Count what reports what it came to."""

        def advance(detail: str = "") -> None:
            self._left -= bool(detail)
            if detail and self._left == 0:
                signal.raise_signal(self._number)

        yield advance


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "number"),
    [
        ("federated", signal.SIGTERM),
        *((mode, signal.SIGINT) for mode in MODES if mode not in ("fedadam", "fedavgm")),
    ],
)
def test_asked_to_stop_it_ends_after_a_checkpoint_and_goes_on(
    whole: Whole, tmp_path: Path, mode: str, number: signal.Signals
) -> None:
    config, unharmed = whole(mode)
    run = tmp_path / "run"
    # A local run reports each client once; all of this one are in the last stretch.
    if mode == "local":
        report = train(config, run, Stopping(number, after=1), keep=1)
        assert report.folder == run
    else:
        with pytest.raises(StoppedError, match=f"go on with: pkgllm train --resume {run}"):
            train(config, run, Stopping(number, after=2), keep=1)
        assert [path.name for path in (run / "checkpoints").iterdir()] == ["000002.safetensors"]
        assert len(RunFolder.open(run).read_metrics()) == 2
        resume(run, Silent(), keep=1)
    assert content(run) == content(unharmed)


@pytest.mark.slow
def test_a_finished_run_is_reported_and_not_touched(whole: Whole) -> None:
    _, run = whole("federated")
    before = content(run)
    report = resume(run, Silent())
    assert content(run) == before
    assert report.results["queries"] == json.loads((run / "results.json").read_text())["queries"]
    assert any("Privacy" in note for note in report.notes)


@pytest.fixture(scope="module")
def stopped_once(whole: Whole, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.raises(StoppedError):
        train(whole("federated")[0], run, Stopping(signal.SIGTERM, after=2))
    return run


@pytest.fixture
def stopped(whole: Whole, stopped_once: Path, tmp_path: Path) -> tuple[Experiment, Path]:
    """A run that was stopped after its second round."""
    return whole("federated")[0], Path(shutil.copytree(stopped_once, tmp_path / "stopped"))


@pytest.mark.slow
def test_another_configuration_is_refused_with_the_keys(stopped: tuple[Experiment, Path]) -> None:
    config, run = stopped
    training = config.training.model_copy(update={"local_steps": 2})
    other = config.model_copy(update={"seed": 8, "training": training})
    with pytest.raises(ConfigError) as caught:
        resume(run, Silent(), expected=other)
    assert str(caught.value) == (
        f"--resume {run}: must go on with the configuration of the run, which differs in seed: 7 "
        "there, 8 given; training.local_steps: 1 there, 2 given; leave --config and --set away, or "
        "train anew"
    )
    assert resume(run, Silent(), expected=config.model_copy(update={"output": "elsewhere"}))


def test_changed_data_and_base_models_are_refused(
    stopped: tuple[Experiment, Path], data: Path
) -> None:
    _, run = stopped
    provenance = json.loads((run / "provenance.json").read_text())
    for name, error in (("split", DataError), ("base_model", ModelError)):
        changed = {**provenance, "digests": {**provenance["digests"], name: "other"}}
        (run / "provenance.json").write_text(json.dumps(changed))
        with pytest.raises(error, match=r"base model|data have changed since the run began"):
            resume(run, Silent())


def test_an_edited_configuration_or_split_is_refused_with_what_changed(
    stopped: tuple[Experiment, Path],
) -> None:
    _, run = stopped
    path, split = run / "config.yaml", run / "split.json"
    before, held_out = path.read_text(), json.loads(split.read_text())
    path.write_text(before.replace("local_steps: 1", "local_steps: 3"))
    with pytest.raises(ConfigError, match=r"config\.yaml: was changed since .* 1 there, 3 given"):
        resume(run, Silent())
    path.write_text(before)
    client = next(iter(held_out["clients"]))
    del held_out["clients"][client]
    split.write_text(json.dumps(held_out))
    with pytest.raises(DataError, match=rf"split\.json: was changed .*\(clients {client}\)"):
        resume(run, Silent())


@pytest.mark.slow
def test_a_run_of_an_earlier_version_goes_on_and_says_what_is_not_checked(
    stopped: tuple[Experiment, Path], caplog: pytest.LogCaptureFixture
) -> None:
    _, run = stopped
    made = json.loads((run / "provenance.json").read_text())
    del made["configuration"]
    made["digests"] = {k: v for k, v in made["digests"].items() if "base_model/" not in k}
    (run / "provenance.json").write_text(json.dumps(made))
    assert resume(run, Silent())
    assert "kept no copy of the configuration" in caplog.text
    assert "kept no digest of base model's configuration" in caplog.text


@pytest.mark.slow
def test_a_damaged_checkpoint_is_passed_over(
    whole: Whole, stopped: tuple[Experiment, Path], caplog: pytest.LogCaptureFixture
) -> None:
    _, run = stopped
    newest = run / "checkpoints" / "000002.safetensors"
    content_before = bytearray(newest.read_bytes())
    content_before[-1] ^= 1
    newest.write_bytes(bytes(content_before))
    resume(run, Silent(), keep=1)
    assert "does not match its checksum" in caplog.text
    assert content(run) == content(whole("federated")[1])


def test_without_any_good_checkpoint_it_is_refused(stopped: tuple[Experiment, Path]) -> None:
    _, run = stopped
    for path in (run / "checkpoints").iterdir():
        path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(RunError, match="no checkpoint can be used"):
        resume(run, Silent())


def test_where_a_power_cut_took_a_line_the_checkpoint_before_it_serves(
    whole: Whole, stopped: tuple[Experiment, Path], caplog: pytest.LogCaptureFixture
) -> None:
    _, run = stopped
    metrics = run / "metrics.jsonl"
    metrics.write_bytes(metrics.read_bytes()[:-1])
    resume(run, Silent(), keep=1)
    assert "must hold the 2 lines that were there at the checkpoint, holds 1" in caplog.text
    assert content(run) == content(whole("federated")[1])


def test_a_run_goes_back_to_an_older_round(whole: Whole, stopped: tuple[Experiment, Path]) -> None:
    _, run = stopped
    with pytest.raises(RunError, match=r"000007\.safetensors: .* there are those of 2, 1"):
        resume(run, Silent(), from_round=7)
    resume(run, Silent(), keep=1, from_round=1)
    assert content(run) == content(whole("federated")[1])
    with pytest.raises(RunError, match="needs a run whose training is not done"):
        resume(run, Silent(), from_round=1)


@pytest.mark.parametrize("mode", ["scaffold", "centralized"])
def test_what_has_no_older_state_does_not_go_back(whole: Whole, mode: str) -> None:
    with pytest.raises(ConfigError, match="needs mode federated with a strategy whose clients"):
        resume(whole(mode)[1], Silent(), from_round=1)


def test_metrics_shorter_than_every_checkpoint_are_refused(
    stopped: tuple[Experiment, Path],
) -> None:
    _, run = stopped
    (run / "metrics.jsonl").unlink()
    with pytest.raises(RunError, match="must hold the 2 lines that were there at the checkpoint"):
        resume(run, Silent())


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no such folder"):
        resume(tmp_path / "nowhere", Silent())
    with pytest.raises(RunError, match="was stopped before it began; train anew with --config"):
        resume(tmp_path, Silent())


def test_two_processes_do_not_train_in_one_folder(stopped: tuple[Experiment, Path]) -> None:
    _, run = stopped
    with (
        RunFolder.open(run).occupied(),
        pytest.raises(RunError, match="another process is training in it"),
    ):
        resume(run, Silent())


@pytest.mark.slow
def test_keep_decides_how_many_checkpoints_stay(whole: Whole, tmp_path: Path) -> None:
    config, _ = whole("federated")
    train(config, tmp_path / "run", Silent(), keep=3)
    names = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert names == [f"{number:06d}.safetensors" for number in (2, 3, 4)]
