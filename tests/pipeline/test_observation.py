import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from helpers.run_files import MODES, Finished, files_below
from helpers.tiny_corpus import tiny_experiment
from pkgllm.config import schema
from pkgllm.errors import ConfigError
from pkgllm.pipeline.build import populate, read_corpus
from pkgllm.pipeline.comparison import read_predictions
from pkgllm.pipeline.evaluate import evaluate_run
from pkgllm.pipeline.train import train
from pkgllm.progress import Silent
from pkgllm.runs.folder import RunFolder
from pkgllm.runs.observer import TENSORBOARD, Observer

pytest_plugins = ["helpers.finished_runs"]

WATCHED = {"evaluate_every": 2, "max_clients": None}
HELD_OUT = {"validation_share": 0.2, "test_share": 0.2}


def scalars(run: Path) -> dict[str, list[tuple[Any, Any]]]:
    found = EventAccumulator(str(run / TENSORBOARD))
    found.Reload()
    return {
        tag: [(event.step, event.value) for event in found.Scalars(tag)]
        for tag in found.Tags()["scalars"]
    }


@pytest.fixture(scope="module", params=["federated", "centralized"])
def watched(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    data: Path,
    tiny_base_folder: Path,
) -> Path:
    config = tiny_experiment(
        data,
        tiny_base_folder,
        mode={**MODES[request.param], "rounds": 4},
        split=HELD_OUT,
        observation=WATCHED,
    )
    path = tmp_path_factory.mktemp("watched") / "run"
    train(config, path, Silent())
    return path


@pytest.mark.slow
def test_the_last_validation_is_what_an_evaluation_of_that_part_finds(
    watched: Path, tmp_path: Path
) -> None:
    records = RunFolder(watched).read_validation()
    assert [record["round_num"] for record in records] == [2, 4]
    (report,) = evaluate_run(
        watched, Silent(), output=tmp_path / "v", overrides=["evaluation.part=validation"]
    )
    for metric in ("hits@10", "mrr"):
        value = report.results["models"]["tuned"][metric]["value"]
        assert records[-1][metric] == pytest.approx(value, abs=1e-12)
    # Two of ten liked films of each of twelve clients.
    assert {name: records[-1][name] for name in ("clients", "queries", "failures")} == {
        "clients": 12,
        "queries": 24,
        "failures": 0,
    }
    assert records[0]["mrr"] != records[1]["mrr"]


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["lanes", "sequential"])
def test_watching_changes_nothing_that_is_trained(
    data: Path, tiny_base_folder: Path, tmp_path: Path, engine: str
) -> None:
    sections: dict[str, Any] = {"split": HELD_OUT, "training": {"engine": engine}}
    runs = {
        "watched": {"evaluate_every": 1, "max_clients": 3},
        "alone": {"tensorboard": False},
    }
    for name, observation in runs.items():
        config = tiny_experiment(data, tiny_base_folder, **sections, observation=observation)
        train(config, tmp_path / name, Silent())
    watched, alone = files_below(tmp_path / "watched"), files_below(tmp_path / "alone")
    # A checkpoint counts the lines of all files, those of validation among them.
    changing = {name for name in watched if name.startswith("checkpoints/")}
    changing |= {"config.yaml", "provenance.json", "timings.jsonl"}
    same = (watched.keys() & alone.keys()) - changing
    assert {"adapter/adapter_model.safetensors", "predictions.jsonl", "metrics.jsonl"} <= same
    assert {name: watched[name] for name in same} == {name: alone[name] for name in same}
    events, validation = sorted(watched.keys() - alone.keys())
    assert events.startswith(f"{TENSORBOARD}/events.out.tfevents.")
    assert validation == "validation.jsonl"
    # And the two can be compared.
    one, other = (read_predictions(tmp_path / name, name) for name in runs)
    assert one.setting == other.setting


@pytest.mark.slow
def test_a_validation_is_the_same_in_every_repetition(
    data: Path, tiny_base_folder: Path, tmp_path: Path
) -> None:
    config = tiny_experiment(
        data, tiny_base_folder, split=HELD_OUT, observation={"evaluate_every": 1, "max_clients": 3}
    )
    for name in ("one", "other"):
        train(config, tmp_path / name, Silent())
    for name in ("validation.jsonl", "metrics.jsonl"):
        one = (tmp_path / "one" / name).read_bytes()
        assert one == (tmp_path / "other" / name).read_bytes()
    assert [r["clients"] for r in RunFolder(tmp_path / "one").read_validation()] == [3, 3]


@pytest.mark.slow
def test_tensorboard_shows_every_number_of_the_files(watched: Path) -> None:
    run, found = RunFolder(watched), scalars(watched)
    federated = mode_of(watched) == "federated"
    for record in run.read_validation():
        for name in ("hits@10", "mrr"):
            assert (record["round_num"], pytest.approx(record[name])) in found[f"validation/{name}"]
    for record in run.read_metrics():
        at = record["round_num"]
        assert (at, pytest.approx(record["update_norm"])) in found["training/update_norm"]
        if federated:
            norms: Any = record["update_norms"]
            assert (at, pytest.approx(norms["sd"])) in found["training/update_norms/sd"]
            assert (at, 2) in found["training/cohort"]
            assert (at, 0) in found["training/failed"]
    assert [step for step, _ in found["timings/seconds"]] == [1, 2, 3, 4]
    assert [step for step, _ in found["timings/validation_seconds"]] == [2, 4]
    assert "timings/time" not in found
    names = {tag for tag in found if "loss" in tag}
    assert names == (set() if federated else {"training/loss"})


def mode_of(run: Path) -> str:
    return "federated" if "cohort" in json.loads((run / "metrics.jsonl").open().readline()) else ""


def test_a_run_that_goes_on_shows_no_round_twice(watched: Path, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    shutil.copytree(watched, run.path)
    for path in (run.metrics, run.timings):
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join(lines[:3]))
    run.validation.write_bytes(run.validation.read_bytes().splitlines(keepends=True)[0])
    observer = Observer(run, tensorboard=True)
    assert [step for step, _ in scalars(run.path)["timings/seconds"]] == [1, 2, 3]
    observer.after_round(4, {}, metrics={"update_norm": 0.5}, timings={"seconds": 2.0})
    found = scalars(run.path)
    assert [step for step, _ in found["timings/seconds"]] == [1, 2, 3, 4]
    assert found["training/update_norm"][-1] == (4, 0.5)
    assert [step for step, _ in found["validation/mrr"]] == [2]
    before = scalars(watched)
    assert found["training/update_norm"][:3] == before["training/update_norm"][:3]


def test_local_training_draws_nothing_of_single_clients(
    run_in: Callable[[str], Finished],
) -> None:
    _, path, _ = run_in("local")
    assert scalars(path) == {}
    timings = RunFolder(path).read_timings()
    assert [record["clients"] for record in timings] == [10]
    assert "client" not in timings[0]


def observed(mode: str = "federated", **observation: Any) -> Callable[..., schema.Experiment]:
    def make(data: Path, base: Path, **split: float) -> schema.Experiment:
        return tiny_experiment(data, base, mode=MODES[mode], split=split, observation=observation)

    return make


@pytest.mark.parametrize(
    ("make", "split", "message"),
    [
        (
            observed(evaluate_every=1),
            {"validation_share": 0.0},
            "share above 0, because nothing",
        ),
        (observed(evaluate_every=3), HELD_OUT, "must be at most mode.rounds, 2"),
        (observed("local", evaluate_every=1), HELD_OUT, "must be 0 in mode local"),
    ],
)
def test_what_cannot_be_watched_is_refused(
    data: Path,
    tiny_base_folder: Path,
    make: Callable[..., schema.Experiment],
    split: dict[str, float],
    message: str,
) -> None:
    with pytest.raises(ValueError, match=message):
        make(data, tiny_base_folder, **split)


def test_a_share_that_holds_nothing_out_is_refused_before_training(
    data: Path, tiny_base_folder: Path, tmp_path: Path
) -> None:
    # 4 % of ten liked films round to none.
    config = observed(evaluate_every=1)(data, tiny_base_folder, validation_share=0.04)
    assert not any(split.validation for split in populate(config, read_corpus(config)).splits)
    with pytest.raises(ConfigError) as caught:
        train(config, tmp_path / "run", Silent())
    assert str(caught.value) == (
        "observation.evaluate_every needs validation facts, and split.validation_share 0.04 rounds "
        "to none for every client; raise it"
    )
    assert list((tmp_path / "run").iterdir()) == []
