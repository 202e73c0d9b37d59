"""Sweeps over the tiny corpus, whole, stopped, killed and failing."""

import json
import shutil
import signal
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from helpers.killed_runs import sweep_until_killed
from helpers.run_files import files_below, predictions, read_json
from helpers.tiny_corpus import tiny_experiment
from pkgllm.config.load import dump_config
from pkgllm.config.schema import Experiment
from pkgllm.config.study_runs import Plan, load_study
from pkgllm.errors import ConfigError, RunError, StoppedError
from pkgllm.pipeline.train import train
from pkgllm.progress import Advance, Progress, Silent
from pkgllm.runs.folder import RunFolder
from pkgllm.studies.sweep import Swept, sweep

pytest_plugins = ["helpers.finished_runs"]

SAME = ("config.yaml", "metrics.jsonl", "predictions.jsonl", "results.json", "adapter")
MakePlan = Callable[..., Plan]


@pytest.fixture(scope="session")
def make_plan(
    tmp_path_factory: pytest.TempPathFactory, data: Path, tiny_base_folder: Path
) -> MakePlan:
    folder = tmp_path_factory.mktemp("studies")
    (folder / "base.yaml").write_text(dump_config(tiny_experiment(data, tiny_base_folder)))

    def make(**changes: Any) -> Plan:
        study = {
            "base": str(folder / "base.yaml"),
            "set": ["mode.rounds=2"],
            "grid": {"objective": {"kto": [], "dpo": ["objective={name: dpo}"]}},
            "seeds": [7, 8],
            "models": ["tuned", "base", "popularity"],
            "reference": {"objective": "kto"},
            "plot": {"x": "objective"},
            **changes,
        }
        path = tmp_path_factory.mktemp("study") / "tiny.yaml"
        path.write_text(yaml.safe_dump(study, sort_keys=False))
        return load_study(str(path))

    return make


def quiet(line: str) -> None: ...


@pytest.fixture(scope="session")
def whole(
    tmp_path_factory: pytest.TempPathFactory, make_plan: MakePlan
) -> tuple[Plan, Path, Swept, list[str]]:
    """A sweep that nobody stopped; nobody changes its files."""
    plan, output = make_plan(), tmp_path_factory.mktemp("whole") / "out"
    told: list[str] = []
    return plan, output, sweep(plan, output, Silent(), told.append), told


def content(output: Path) -> dict[str, bytes]:
    """What all runs found, and the summary without the times."""
    found = {
        name: text
        for name, text in files_below(output).items()
        # PEFT writes the names of the layers in another order in another process.
        if len(parts := Path(name).parts) > 1
        and parts[1] in SAME
        and parts[-1] != "adapter_config.json"
    }
    assert len({Path(name).parts[0] for name in found}) == 4
    return {**found, "plot.svg": (output / "plot.svg").read_bytes()}


def test_the_runs_are_those_by_hand(
    whole: tuple[Plan, Path, Swept, list[str]], tmp_path: Path
) -> None:
    plan, output, swept, told = whole
    names = ["kto-seed7", "kto-seed8", "dpo-seed7", "dpo-seed8"]
    assert [run.name for run in plan.runs] == names
    assert told == [f"run {number}/4: {name}" for number, name in enumerate(names, start=1)]
    assert swept.failures == {}
    assert not (output / "failures.jsonl").exists()
    last = plan.runs[-1]
    assert isinstance(last.config, Experiment)
    assert (last.config.seed, last.config.objective.name) == (8, "dpo")
    train(last.config, tmp_path / "by hand", Silent())
    there, here = files_below(output / last.name), files_below(tmp_path / "by hand")
    for name in here:
        if Path(name).parts[0] in SAME:
            assert there[name] == here[name], name


def test_the_summary_holds_what_the_results_say(
    whole: tuple[Plan, Path, Swept, list[str]],
) -> None:
    plan, output, swept, _ = whole
    summary = read_json(output / "summary.json")
    assert summary == json.loads(json.dumps(swept.summary))
    assert [run["state"] for run in summary["runs"]] == ["finished"] * 4
    results = {run.name: read_json(output / run.name / "results.json") for run in plan.runs}
    for point in summary["points"]:
        runs = [f"{point['name']}-seed{seed}" for seed in (7, 8)]
        assert point["seeds"] == [7, 8]
        assert point["privacy"] is None
        seconds = [
            sum(
                float(str(record["seconds"]))
                for record in RunFolder.open(output / run).read_timings()
            )
            for run in runs
        ]
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
    found = difference["metrics"]["mrr"]
    assert found["difference"] == pytest.approx(statistics.mean(gain))
    assert found["p"] == found["p_holm"]
    text = (output / "summary.md").read_text()
    assert text.startswith("## Study tiny: 4 of 4 runs finished\n")
    assert "| privacy unit | epsilon | delta | relation | accountant |" in text
    assert "![tiny](plot.png)" in text


def test_what_one_point_ranks_for_all_is_shown_once(
    whole: tuple[Plan, Path, Swept, list[str]], make_plan: MakePlan, tmp_path: Path
) -> None:
    plan = make_plan(
        seeds=[7],
        grid={
            "objective": {
                "kto": [],
                "dpo": ["objective={name: dpo}", "evaluation.base_model=false"],
            }
        },
    )
    summary = sweep(plan, tmp_path / "out", Silent(), quiet).summary
    assert [list(point["models"]) for point in summary["points"]] == [["tuned"], ["tuned"]]
    assert list(summary["shared"]) == ["base", "popularity"]
    of_both = whole[2].summary["shared"]["base"]["mrr"]["values"]
    assert summary["shared"]["base"]["mrr"]["values"] == of_both[:1]
    assert "base, popularity: the same wherever ranked" in (tmp_path / "out/summary.md").read_text()


def test_finished_runs_are_left_alone(
    whole: tuple[Plan, Path, Swept, list[str]], tmp_path: Path
) -> None:
    plan, output, swept, _ = whole
    copy = tmp_path / "out"
    shutil.copytree(output, copy)
    before = files_below(copy)
    told: list[str] = []
    again = sweep(plan, copy, Silent(), told.append)
    assert files_below(copy) == before
    assert again == swept
    assert told == [
        f"run {number}/4: {run.name}, finished already"
        for number, run in enumerate(plan.runs, start=1)
    ]


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


@pytest.mark.parametrize(
    ("progress", "finished", "unfinished"),
    [
        # In the first round of the second run: it ends after its checkpoint.
        (Stopping("rounds", after=3), ["kto-seed7"], ["kto-seed8"]),
        # In the last round of the first run, whose training is over: it is ranked first.
        (Stopping("rounds", after=2), ["kto-seed7"], []),
        (Stopping("ranking", after=5), ["kto-seed7"], []),
        # Before the first round of the first run, which gets its checkpoint still.
        (Stopping("building groups", after=1), [], ["kto-seed7"]),
    ],
)
def test_a_sweep_that_is_stopped_goes_on(
    whole: tuple[Plan, Path, Swept, list[str]],
    tmp_path: Path,
    progress: Progress,
    finished: list[str],
    unfinished: list[str],
) -> None:
    plan, output, _, _ = whole
    stopped = tmp_path / "out"
    with pytest.raises(StoppedError) as caught:
        sweep(plan, stopped, progress, quiet)
    at = (unfinished or ["kto-seed8"])[0]
    place = f"run {2 if at == 'kto-seed8' else 1}/4: {at}"
    assert str(caught.value) == (
        f"stopped at {place}; go on with: pkgllm sweep --config {plan.given} --output {stopped}"
    )
    assert [path.parent.name for path in stopped.glob("*/results.json")] == finished
    assert sorted(path.name for path in stopped.glob("[!.]*")) == [*finished, *unfinished]
    if len(finished) == 1 and not unfinished:
        return
    sweep(plan, stopped, Silent(), quiet)
    assert content(stopped) == content(output)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(4))
def test_a_sweep_that_is_killed_again_and_again_ends_in_the_same_bytes(
    whole: tuple[Plan, Path, Swept, list[str]], tmp_path: Path, number: int
) -> None:
    plan, output, _, _ = whole
    killed = tmp_path / "out"
    # Some fall between the first file of a run and the next, others between two runs.
    codes = [
        sweep_until_killed(plan.given, killed, instant=("fsync", 1 + 7 * number + 20 * attempt))
        for attempt in range(2)
    ]
    assert codes[0] == -signal.SIGKILL
    assert sweep_until_killed(plan.given, killed, instant=None) == 0
    assert content(killed) == content(output)
    assert not list(killed.glob(".*"))


def test_a_point_that_fails_is_written_down_and_tried_again(
    make_plan: MakePlan, data: Path, tmp_path: Path
) -> None:
    plan = make_plan(
        grid={"data": {"there": [], "moved": [f"corpus.folder={tmp_path / 'moved'}"]}},
        reference={"data": "there"},
        seeds=[7],
        plot={"x": "data"},
        models=["tuned"],
    )
    told: list[str] = []
    swept = sweep(plan, tmp_path / "out", Silent(), told.append)
    (line,) = (tmp_path / "out" / "failures.jsonl").read_text().splitlines()
    assert json.loads(line) == {"run": "moved-seed7", "reason": swept.failures["moved-seed7"]}
    assert str(tmp_path / "moved") in swept.failures["moved-seed7"]
    assert told[-1] == f"run 2/2: moved-seed7 failed: {swept.failures['moved-seed7']}"
    states = [(run["state"], run["reason"]) for run in swept.summary["runs"]]
    assert states == [("finished", None), ("failed", swept.failures["moved-seed7"])]
    table = (tmp_path / "out" / "summary.md").read_text()
    assert "| moved | failed | failed | - | - | - | - | - | 0 of 1 | - |" in table
    assert f"| moved-seed7 | {swept.failures['moved-seed7']} |" in table
    # One run stands with its own interval.
    results = read_json(tmp_path / "out" / "there-seed7" / "results.json")
    measured = results["models"]["tuned"]["mrr"]
    (there, _) = swept.summary["points"]
    assert there["models"]["tuned"]["mrr"] == {
        "mean": measured["value"],
        "sd": None,
        "low": measured["low"],
        "high": measured["high"],
        "values": [measured["value"]],
    }
    shutil.copytree(data, tmp_path / "moved")
    mended = sweep(plan, tmp_path / "out", Silent(), quiet)
    assert mended.failures == {}
    assert (tmp_path / "out" / "failures.jsonl").read_text() == ""
    assert [run["state"] for run in mended.summary["runs"]] == ["finished", "finished"]
    # The same data elsewhere make the same run.
    assert mended.summary["differences"]["points"][0]["metrics"]["mrr"]["difference"] == 0


def test_privacy_is_told_for_a_point_as_a_whole(
    whole: tuple[Plan, Path, Swept, list[str]], tmp_path: Path
) -> None:
    plan, output, _, _ = whole
    copy = tmp_path / "out"
    shutil.copytree(output, copy)
    for seed, epsilon in ((7, 7.5), (8, 7.75)):
        path = copy / f"dpo-seed{seed}" / "results.json"
        told = {
            "unit": "client",
            "epsilon": epsilon,
            "delta": 1e-3,
            "neighboring_relation": "add_or_remove_one",
            "accountant": "prv",
        }
        path.write_text(json.dumps({**read_json(path), "privacy": told}))
    summary = sweep(plan, copy, Silent(), quiet).summary
    kto, dpo = summary["points"]
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


def test_runs_of_other_settings_are_refused_before_anything_is_done(
    whole: tuple[Plan, Path, Swept, list[str]], make_plan: MakePlan, tmp_path: Path
) -> None:
    _, output, _, _ = whole
    copy = tmp_path / "out"
    shutil.copytree(output, copy)
    shutil.rmtree(copy / "kto-seed7")
    other = make_plan(set=["mode.rounds=3", "training.local_steps=2"])
    before = files_below(copy)
    with pytest.raises(ConfigError) as caught:
        sweep(other, copy, Silent(), quiet)
    assert str(caught.value).splitlines() == [
        f"{copy / name}: must be a run of {other.given}, and differs in training.local_steps: 1 "
        "there, 2 given; mode.rounds: 2 there, 3 given; take it away, or choose another --output"
        for name in ("kto-seed8", "dpo-seed7", "dpo-seed8")
    ]
    assert files_below(copy) == before


def test_two_sweeps_do_not_share_a_folder(
    whole: tuple[Plan, Path, Swept, list[str]], tmp_path: Path
) -> None:
    plan, *_ = whole
    with (
        RunFolder.create(tmp_path / "out").occupied(),
        pytest.raises(RunError, match="another process is training in it"),
    ):
        sweep(plan, tmp_path / "out", Silent(), quiet)


def test_damaged_files_are_named(
    whole: tuple[Plan, Path, Swept, list[str]], tmp_path: Path
) -> None:
    plan, output, _, _ = whole
    copy = tmp_path / "out"
    shutil.copytree(output, copy)
    (copy / "failures.jsonl").write_text("[]\n")
    with pytest.raises(RunError, match=r"failures\.jsonl: cannot be read as lines"):
        sweep(plan, copy, Silent(), quiet)
    (copy / "failures.jsonl").unlink()
    (copy / "kto-seed8" / "results.json").write_text('{"models": {}}')
    with pytest.raises(RunError, match=r"kto-seed8/results\.json: must hold hits@10 of tuned"):
        sweep(plan, copy, Silent(), quiet)
