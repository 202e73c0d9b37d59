"""Sweeps over the tiny corpus, whole, stopped, killed and failing."""

import json
import shutil
import signal
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from helpers.killed_runs import sweep_until_killed
from helpers.run_files import files_below, predictions, read_json
from helpers.tiny_studies import MakePlan
from pkgllm.config.schema import Experiment
from pkgllm.errors import ConfigError, RunError, StoppedError
from pkgllm.pipeline.train import train
from pkgllm.progress import Advance, Progress, Silent
from pkgllm.runs.folder import RunFolder
from pkgllm.studies.study_plan import StudyPlan
from pkgllm.studies.sweep import StudyResult, sweep

pytest_plugins = ["helpers.finished_runs", "helpers.tiny_studies"]

SAME = ("config.yaml", "metrics.jsonl", "predictions.jsonl", "results.json", "adapter")
NAMES = ["kto-seed7", "kto-seed8", "dpo-seed7", "dpo-seed8"]


class Whole(NamedTuple):
    plan: StudyPlan
    output: Path
    result: StudyResult
    lines: list[str]


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory, make_plan: MakePlan) -> Whole:
    """A sweep without a stop; its files must not be changed."""
    plan = make_plan(
        seeds=[7, 8],
        models=["tuned", "base", "popularity"],
        reference={"objective": "kto"},
        plot={"x": "objective"},
    )
    output, lines = tmp_path_factory.mktemp("whole") / "out", list[str]()
    return Whole(plan, output, sweep(plan, output, log=lines.append), lines)


@pytest.fixture
def copy(whole: Whole, tmp_path: Path) -> Path:
    """The folder of that sweep, to be changed."""
    shutil.copytree(whole.output, tmp_path / "copy")
    return tmp_path / "copy"


def content(output: Path) -> dict[str, bytes]:
    """The files of all runs that must be the same, and the plot."""
    files = {
        name: text
        for name, text in files_below(output).items()
        # PEFT writes the names of the layers in another order in another process.
        if len(parts := Path(name).parts) > 1
        and parts[1] in SAME
        and parts[-1] != "adapter_config.json"
    }
    assert len({Path(name).parts[0] for name in files}) == 4
    return {**files, "plot.svg": (output / "plot.svg").read_bytes()}


@pytest.mark.slow
def test_a_run_is_the_same_as_training_it_alone(whole: Whole, tmp_path: Path) -> None:
    assert [run.place for run in whole.plan.runs] == NAMES
    assert whole.lines == [f"run {number}/4: {name}" for number, name in enumerate(NAMES, start=1)]
    assert whole.result.failures == {}
    assert not (whole.output / "failures.jsonl").exists()
    last = whole.plan.runs[-1]
    assert isinstance(last.config, Experiment)
    assert (last.config.seed, last.config.objective.name) == (8, "dpo")
    train(last.config, tmp_path / "alone", Silent())
    there, here = files_below(whole.output / last.place), files_below(tmp_path / "alone")
    for name in here:
        if Path(name).parts[0] in SAME:
            assert there[name] == here[name], name


@pytest.mark.slow
def test_the_summary_holds_what_the_results_say(whole: Whole) -> None:
    output = whole.output
    summary = read_json(output / "summary.json")
    assert summary == json.loads(json.dumps(whole.result.summary))
    assert [run["state"] for run in summary["runs"]] == ["finished"] * 4
    results = {name: read_json(output / name / "results.json") for name in NAMES}
    for point in summary["points"]:
        runs = [f"{point['name']}-seed{seed}" for seed in (7, 8)]
        assert point["seeds"] == [7, 8]
        assert point["privacy"] is None
        timings = [RunFolder.open(output / run).read_timings() for run in runs]
        seconds = [sum(float(str(each["seconds"])) for each in records) for records in timings]
        assert point["seconds"] == pytest.approx(statistics.mean(seconds))
        # The base model and popularity do not depend on the objective.
        assert list(point["models"]) == ["tuned"]
        for metric in ("hits@10", "mrr"):
            values = [results[run]["models"]["tuned"][metric]["value"] for run in runs]
            assert point["models"]["tuned"][metric] == {
                "mean": pytest.approx(statistics.mean(values)),
                "sd": pytest.approx(statistics.stdev(values)),
                "low": None,
                "high": None,
                "values": values,
            }
    assert list(summary["shared"]) == ["base", "popularity"]
    values = [results[f"kto-seed{seed}"]["models"]["base"]["mrr"]["value"] for seed in (7, 8)]
    assert summary["shared"]["base"]["mrr"]["values"] == values
    assert summary["differences"]["reference"] == "kto"
    (difference,) = summary["differences"]["points"]
    kto, dpo = (
        [
            rank
            for seed in (7, 8)
            for row in predictions(output / f"{name}-seed{seed}")
            for rank in row["models"]["tuned"]["ranks"]
        ]
        for name in ("kto", "dpo")
    )
    gain = [1 / there - 1 / here for here, there in zip(kto, dpo, strict=True)]
    measured = difference["metrics"]["mrr"]
    assert measured["difference"] == pytest.approx(statistics.mean(gain))
    assert measured["p"] == measured["p_holm"]
    text = (output / "summary.md").read_text()
    assert text.startswith("## Study tiny: 4 of 4 runs finished\n")
    assert "| privacy unit | epsilon | delta | relation | accountant |" in text
    assert "![tiny](plot.png)" in text


@pytest.mark.slow
def test_a_model_that_only_some_points_rank_is_shown_once(
    whole: Whole, make_plan: MakePlan, tmp_path: Path
) -> None:
    without_base = ["objective={name: dpo}", "evaluation.base_model=false"]
    plan = make_plan(
        grid={"objective": {"kto": [], "dpo": without_base}}, models=["tuned", "base", "popularity"]
    )
    summary = sweep(plan, tmp_path / "out").summary
    assert [list(point["models"]) for point in summary["points"]] == [["tuned"], ["tuned"]]
    assert list(summary["shared"]) == ["base", "popularity"]
    of_both = whole.result.summary["shared"]["base"]["mrr"]["values"]
    assert summary["shared"]["base"]["mrr"]["values"] == of_both[:1]
    assert "base, popularity: the same wherever ranked" in (tmp_path / "out/summary.md").read_text()


@pytest.mark.slow
def test_finished_runs_stay_as_they_are(whole: Whole, copy: Path) -> None:
    before, lines = files_below(copy), list[str]()
    again = sweep(whole.plan, copy, log=lines.append)
    assert files_below(copy) == before
    assert (again.summary, again.failures) == (whole.result.summary, {})
    assert lines == [f"{line}, finished already" for line in whole.lines]


class Stopping:
    """Somebody presses Ctrl-C after some units of some piece of work."""

    def __init__(self, work: str, after: int) -> None:
        self._work = work
        self._left = after

    @contextmanager
    def track(self, description: str, total: int) -> Iterator[Advance]:
        """Count units of the work."""

        def advance(detail: str = "") -> None:
            self._left -= description == self._work
            if description == self._work and self._left == 0:
                signal.raise_signal(signal.SIGINT)

        yield advance


@pytest.mark.slow
@pytest.mark.parametrize(
    ("progress", "finished", "unfinished"),
    [
        # In the first round of the second run: it ends after its checkpoint.
        (Stopping("rounds", after=3), ["kto-seed7"], ["kto-seed8"]),
        # In the last round of the first run, whose training is over: it is ranked first.
        (Stopping("rounds", after=2), ["kto-seed7"], []),
        (Stopping("ranking", after=5), ["kto-seed7"], []),
        # Before the first round of the first run, which still writes its checkpoint.
        (Stopping("building groups", after=1), [], ["kto-seed7"]),
    ],
)
def test_a_sweep_that_is_stopped_goes_on(
    whole: Whole, tmp_path: Path, progress: Progress, finished: list[str], unfinished: list[str]
) -> None:
    plan, stopped = whole.plan, tmp_path / "out"
    with pytest.raises(StoppedError) as caught:
        sweep(plan, stopped, progress=progress)
    at = (unfinished or ["kto-seed8"])[0]
    place = f"run {2 if at == 'kto-seed8' else 1}/4: {at}"
    assert str(caught.value) == (
        f"stopped at {place}; go on with: pkgllm sweep --config {plan.source} --output {stopped}"
    )
    assert [path.parent.name for path in stopped.glob("*/results.json")] == finished
    assert sorted(path.name for path in stopped.glob("[!.]*")) == [*finished, *unfinished]
    if unfinished:
        sweep(plan, stopped)
        assert content(stopped) == content(whole.output)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(4))
def test_a_sweep_that_is_killed_again_and_again_ends_in_the_same_bytes(
    whole: Whole, tmp_path: Path, number: int
) -> None:
    killed, source = tmp_path / "out", whole.plan.source
    # Some fall between the first file of a run and the next, others between two runs.
    codes = [
        sweep_until_killed(source, killed, instant=("fsync", 1 + 7 * number + 20 * attempt))
        for attempt in range(2)
    ]
    assert codes[0] == -signal.SIGKILL
    assert sweep_until_killed(source, killed, instant=None) == 0
    assert content(killed) == content(whole.output)
    assert not list(killed.glob(".*"))


@pytest.mark.slow
def test_a_point_that_fails_is_recorded_and_tried_again(
    make_plan: MakePlan, data: Path, tmp_path: Path
) -> None:
    plan = make_plan(
        grid={"data": {"there": [], "moved": [f"corpus.folder={tmp_path / 'moved'}"]}},
        reference={"data": "there"},
        plot={"x": "data"},
    )
    output, lines = tmp_path / "out", list[str]()
    result = sweep(plan, output, log=lines.append)
    reason = result.failures["moved-seed7"]
    (line,) = (output / "failures.jsonl").read_text().splitlines()
    assert json.loads(line) == {"run": "moved-seed7", "reason": reason}
    assert str(tmp_path / "moved") in reason
    assert lines[-1] == f"run 2/2: moved-seed7 failed: {reason}"
    states = [(run["state"], run["reason"]) for run in result.summary["runs"]]
    assert states == [("finished", None), ("failed", reason)]
    table = (output / "summary.md").read_text()
    assert "| moved | failed | failed | - | - | - | - | - | 0 of 1 | - |" in table
    assert f"| moved-seed7 | {reason} |" in table
    # One run stands with its own interval.
    measured = read_json(output / "there-seed7" / "results.json")["models"]["tuned"]["mrr"]
    (there, _) = result.summary["points"]
    assert there["models"]["tuned"]["mrr"] == {
        "mean": measured["value"],
        "sd": None,
        "low": measured["low"],
        "high": measured["high"],
        "values": [measured["value"]],
    }
    shutil.copytree(data, tmp_path / "moved")
    mended = sweep(plan, output)
    assert mended.failures == {}
    assert (output / "failures.jsonl").read_text() == ""
    assert [run["state"] for run in mended.summary["runs"]] == ["finished", "finished"]
    # The same data elsewhere make the same run.
    assert mended.summary["differences"]["points"][0]["metrics"]["mrr"]["difference"] == 0


@pytest.mark.slow
def test_privacy_is_stated_for_a_point_as_a_whole(whole: Whole, copy: Path) -> None:
    for seed, epsilon in ((7, 7.5), (8, 7.75)):
        path = copy / f"dpo-seed{seed}" / "results.json"
        privacy = {
            "unit": "client",
            "epsilon": epsilon,
            "delta": 1e-3,
            "neighboring_relation": "add_or_remove_one",
            "accountant": "prv",
        }
        path.write_text(json.dumps({**read_json(path), "privacy": privacy}))
    kto, dpo = sweep(whole.plan, copy).summary["points"]
    assert kto["privacy"] is None
    assert dpo["privacy"] == {
        "unit": "client",
        "epsilon": 7.75,
        "share_epsilon": None,
        "delta": 1e-3,
        "relation": "add or remove one",
        "accountant": "prv",
    }
    table = (copy / "summary.md").read_text()
    assert "| client | 7.75 | 0.001 | add or remove one | prv | 2 |" in table
    assert "| none | - | - | - | - | 2 |" in table


def test_runs_of_other_settings_are_refused_before_any_work(
    make_plan: MakePlan, copy: Path
) -> None:
    shutil.rmtree(copy / "kto-seed7")
    other = make_plan(set=["mode.rounds=3", "training.local_steps=2"], seeds=[7, 8])
    before = files_below(copy)
    with pytest.raises(ConfigError) as caught:
        sweep(other, copy)
    assert str(caught.value).splitlines() == [
        f"{copy / name}: must be a run of {other.source}, and differs in training.local_steps: 1 "
        "there, 2 given; mode.rounds: 2 there, 3 given; take it away, or choose another --output"
        for name in NAMES[1:]
    ]
    assert files_below(copy) == before


def test_two_sweeps_do_not_share_a_folder(whole: Whole, tmp_path: Path) -> None:
    with (
        RunFolder.create(tmp_path / "out").occupied(),
        pytest.raises(RunError, match="another process is training in it"),
    ):
        sweep(whole.plan, tmp_path / "out")


def test_damaged_files_are_named(whole: Whole, copy: Path) -> None:
    (copy / "failures.jsonl").write_text("[]\n")
    with pytest.raises(RunError, match=r"failures\.jsonl: line 1: it must be"):
        sweep(whole.plan, copy)
    (copy / "failures.jsonl").unlink()
    (copy / "kto-seed8" / "results.json").write_text('{"models": {}}')
    with pytest.raises(RunError, match=r"kto-seed8/results\.json: must hold hits@10 of tuned"):
        sweep(whole.plan, copy)
