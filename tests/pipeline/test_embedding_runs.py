"""Runs of embeddings: what they leave, how they go on, and what they are asked later."""

import json
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from helpers.killed_runs import run_until_killed
from helpers.run_files import Finished, files_below, predictions, read_json, read_metrics
from helpers.tiny_corpus import FILMS, write_corpus
from helpers.tiny_embeddings import EMBEDDINGS, Deadly, Killed, tiny_embedding
from pkgllm.config.load import load_any_config
from pkgllm.config.schema import EmbeddingExperiment
from pkgllm.errors import ConfigError, DataError, ModelError, RunError, StoppedError
from pkgllm.pipeline.comparison import compare
from pkgllm.pipeline.evaluate import evaluate_run
from pkgllm.pipeline.reporting import write_report
from pkgllm.pipeline.train import build_data, resume, train
from pkgllm.progress import Advance, Silent
from pkgllm.report.evaluation import Report
from pkgllm.studies.sweep import sweep

pytest_plugins = ["helpers.finished_runs"]

SAME = ("config.yaml", "split.json", "metrics.jsonl", "predictions.jsonl", "results.json")

Embedded = Callable[[str], tuple[EmbeddingExperiment, Path, Report]]


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Embedded:
    """Train once; nobody changes the files of these runs."""

    @cache
    def run(name: str) -> tuple[EmbeddingExperiment, Path, Report]:
        config = tiny_embedding(data, name)
        path = tmp_path_factory.mktemp("embedded") / name
        return config, path, train(config, path, Silent(), keep=1)

    return run


@pytest.fixture
def copied(embedded: Embedded, tmp_path: Path) -> Path:
    """A finished run of HAKE that may be changed."""
    return Path(shutil.copytree(embedded("hake")[1], tmp_path / "copied"))


def content(run: Path) -> dict[str, bytes]:
    """What a run found, by the name of the file."""
    files = [run / name for name in (*SAME, "embedding.safetensors")]
    files += sorted((run / "stages").rglob("*.safetensors"))
    return {str(file.relative_to(run)): file.read_bytes() for file in files}


@pytest.mark.parametrize("name", EMBEDDINGS)
def test_a_run_leaves_what_a_language_models_run_leaves(embedded: Embedded, name: str) -> None:
    config, path, report = embedded(name)
    assert load_any_config(str(path / "config.yaml")) == config
    epochs = [
        (stage, epoch)
        for stage, schedule in config.embedding.schedules.items()
        for epoch in range(1, schedule.epochs + 1)
    ]
    assert [(record["stage"], record["epoch"]) for record in read_metrics(path)] == epochs
    timings = [json.loads(line) for line in (path / "timings.jsonl").read_text().splitlines()]
    assert [(record["stage"], record["epoch"]) for record in timings] == epochs
    assert list(report.results["models"]) == ["tuned", "popularity", "item_knn", "ease"]
    assert report.title == f"{name}, centralized"
    assert report.results["failures"]["tuned"] == 0
    assert read_json(path / "results.json")["privacy"] is None
    told = " ".join(report.notes)
    assert "Embedding: tuned on " in told
    assert "0 of 12 have no visible fact that the embedding knows" in told
    assert set(read_json(path / "provenance.json")["digests"]) >= {"train_data.jsonl", "split"}
    assert len(list((path / "stages").rglob("*.safetensors"))) == len(config.embedding.schedules)


@pytest.mark.slow
def test_it_is_asked_what_a_language_model_is_asked(
    embedded: Embedded, run_in: Callable[[str], Finished]
) -> None:
    _, own, report = embedded("hake")
    _, tuned, _ = run_in("federated")
    assert read_json(own / "split.json") == read_json(tuned / "split.json")
    for mine, other in zip(predictions(own), predictions(tuned), strict=True):
        for key in ("client", "seen_in_training", "held_out", "candidates"):
            assert mine[key] == other[key]
        # What needs no training but the same likes ranks the same.
        for model in ("popularity", "item_knn", "ease"):
            assert mine["models"][model] == other["models"][model]
    found = compare([tuned, own])
    assert [model["name"] for model in found["models"]] == [
        "federated: tuned",
        "federated: base",
        "hake: tuned",
        "popularity",
        "item_knn",
        "ease",
    ]
    ours = found["models"][2]["metrics"]["mrr"]["value"]
    assert ours == report.results["models"]["tuned"]["mrr"]["value"]
    assert ["federated: tuned", "hake: tuned"] in [
        [pair["first"], pair["second"]] for pair in found["differences"]
    ]
    assert not any("did not all read the same" in note for note in found["notes"])


@pytest.mark.parametrize("units", range(1, 8))
def test_a_run_killed_after_any_epoch_ends_in_the_same_bytes(
    embedded: Embedded, tmp_path: Path, units: int
) -> None:
    config, whole, _ = embedded("kbgat")
    with pytest.raises(Killed):
        train(config, tmp_path / "run", Deadly("training", units), keep=1)
    # The epoch was written down, and its checkpoint was not.
    assert len(read_metrics(tmp_path / "run")) == units
    resume(tmp_path / "run", Silent(), keep=1)
    assert content(tmp_path / "run") == content(whole)


def test_a_run_killed_while_it_ranks_trains_no_more(embedded: Embedded, tmp_path: Path) -> None:
    config, whole, _ = embedded("hake")
    with pytest.raises(Killed):
        train(config, tmp_path / "run", Deadly("ranking", 2), keep=1)
    resume(tmp_path / "run", Deadly("training", 1), keep=1)
    assert content(tmp_path / "run") == content(whole)


@pytest.mark.slow
@pytest.mark.parametrize("instant", [("replace", 4), ("fsync", 9), 6.0])
def test_a_run_whose_process_is_killed_ends_in_the_same_bytes(
    embedded: Embedded, tmp_path: Path, instant: float | tuple[str, int]
) -> None:
    config, whole, _ = embedded("hake")
    run, tree = tmp_path / "run", config.model_dump(mode="json")
    code = run_until_killed(tree, run, resume=False, instant=instant)
    assert code in (0, -signal.SIGKILL)
    begun = (run / "config.yaml").exists()
    if not begun:
        shutil.rmtree(run, ignore_errors=True)
    assert run_until_killed(tree, run, resume=begun, instant=None) == 0
    assert content(run) == content(whole)


class Stopping:
    """Progress that asks to stop, as Ctrl-C does, while an epoch is told of."""

    @contextmanager
    def track(self, description: str, total: int) -> Iterator[Advance]:
        told = 0

        def advance(detail: str = "") -> None:
            nonlocal told
            told += 1
            if told == 2:
                signal.raise_signal(signal.SIGTERM)

        yield advance


@pytest.mark.slow
def test_sigterm_ends_after_the_epochs_checkpoint(embedded: Embedded, tmp_path: Path) -> None:
    config, whole, _ = embedded("hake")
    run = tmp_path / "run"
    with pytest.raises(StoppedError) as caught:
        train(config, run, Stopping(), keep=1)
    assert str(caught.value) == (
        f"stopped after a checkpoint; go on with: pkgllm train --resume {run}"
    )
    assert [path.name for path in (run / "stages").rglob("*.*")] == ["000002.safetensors"]
    # The report of an unfinished run says how far it is.
    report, missing = write_report(run)
    assert "Stage hake: 2 of 3 epochs are there." in missing
    assert "| hake | 2 |" in report.read_text()
    shutil.rmtree(run / "report")
    resume(run, Silent(), expected=config, keep=1)
    assert content(run) == content(whole)


def test_going_on_with_other_settings_or_data_is_refused(
    embedded: Embedded, copied: Path, data: Path, other_data: Path, tmp_path: Path
) -> None:
    before = files_below(copied)
    changed = tiny_embedding(data, embedding={**EMBEDDINGS["hake"], "margin": 2.0})
    with pytest.raises(ConfigError, match=r"embedding\.margin: 9\.0 there, 2\.0 given"):
        resume(copied, Silent(), expected=changed)
    again = resume(copied, Silent())
    assert again.results["models"] == embedded("hake")[2].results["models"]
    assert files_below(copied) == before
    (copied / "results.json").unlink()
    text = (copied / "config.yaml").read_text()
    (copied / "config.yaml").write_text(text.replace(str(data), str(other_data)))
    with pytest.raises(DataError, match="the data have changed since the run began"):
        resume(copied, Silent())
    with pytest.raises(DataError, match="the data have changed since the run was trained"):
        evaluate_run(copied, Silent(), output=tmp_path / "out")


def test_a_later_evaluation_finds_the_same(embedded: Embedded, copied: Path) -> None:
    (report,) = evaluate_run(copied, Silent())
    assert report.folder == copied / "evaluations" / "001"
    assert report.results == embedded("hake")[2].results
    assert (
        files_below(report.folder)["predictions.jsonl"]
        == (copied / "predictions.jsonl").read_bytes()
    )
    (validation,) = evaluate_run(copied, Silent(), overrides=["evaluation.part=validation"])
    assert validation.folder.name == "002"
    assert "each client's validation likes" in " ".join(validation.notes)
    assert len(compare([copied, copied / "evaluations" / "001"])["models"]) >= 4


def test_other_people_are_fit_to_what_is_visible_of_them(
    copied: Path,
    tmp_path: Path,
    make_dialogue: Callable[..., dict[str, Any]],
    write_redial: Callable[..., Path],
) -> None:
    films = list(FILMS)
    write_redial(
        tmp_path / "others",
        [
            make_dialogue(1, "00", dict.fromkeys(films[:5], "liked"), names=FILMS),
            # Of whom nothing is visible: the only like is asked for.
            make_dialogue(2, "x", {films[7]: "liked"}, names=FILMS),
            make_dialogue(3, "y", {films[7]: "liked"}, names=FILMS),
        ],
        FILMS,
    )
    (report,) = evaluate_run(copied, Silent(), data=tmp_path / "others")
    told = {record["client"]: record for record in predictions(report.folder)}
    assert not any(record["seen_in_training"] for record in told.values())
    assert told["x"]["models"]["tuned"] == told["y"]["models"]["tuned"]
    assert "2 of 3 have no visible fact that the embedding knows" in " ".join(report.notes)


def test_people_of_another_catalogue_are_refused(
    copied: Path,
    tmp_path: Path,
    make_dialogue: Callable[..., dict[str, Any]],
    write_redial: Callable[..., Path],
) -> None:
    films = {**FILMS, "42": "Unheard Of (2001)"}
    liked = dict.fromkeys(list(FILMS)[:3], "liked")
    write_redial(tmp_path / "others", [make_dialogue(1, "x", liked, names=films)], films)
    with pytest.raises(DataError) as caught:
        evaluate_run(copied, Silent(), data=tmp_path / "others")
    assert str(caught.value) == (
        "tuned: every item to rank must have a vector, and 1 of 41 have none, one is '42'; an "
        "embedding can only rank the catalogue that it was trained with"
    )
    assert not (copied / "evaluations").exists()


@pytest.mark.parametrize("protocol", ["lists", "all", "legacy-leak"])
def test_it_writes_no_lists(copied: Path, protocol: Any) -> None:
    with pytest.raises(ConfigError, match=f"--protocol {protocol}: must be exact"):
        evaluate_run(copied, Silent(), protocol=protocol)


def test_an_unfinished_or_damaged_run_is_not_evaluated(copied: Path) -> None:
    with pytest.raises(ConfigError, match="only the keys of evaluation can be set"):
        evaluate_run(copied, Silent(), overrides=["fold_in.steps=1"])
    embedding = copied / "embedding.safetensors"
    embedding.write_bytes(embedding.read_bytes()[:-9])
    with pytest.raises(ModelError, match=r"embedding\.safetensors: cannot be read"):
        evaluate_run(copied, Silent())
    embedding.unlink()
    with pytest.raises(RunError, match=r"because embedding\.safetensors is missing"):
        evaluate_run(copied, Silent())


@pytest.mark.slow
def test_the_report_tells_every_stage(embedded: Embedded, tmp_path: Path) -> None:
    report, missing = write_report(embedded("kbgat")[1], tmp_path / "report")
    assert missing == ()
    text = report.read_text()
    for piece in (
        "# kbgat: kbgat, centralized",
        "| stage decoder | 2 epochs, 64 triples in a step, 2 negatives, learning rate 0.02 |",
        "| transe | 3 |",
        "| attention | 2 |",
        "Losses of different stages are not comparable.",
        "![Loss by epoch of each stage](epochs.png)",
        "| tuned | ",
    ):
        assert piece in text
    assert (tmp_path / "report" / "epochs.svg").is_file()


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"stage": "hake", "epoch": 5, "loss": 0.1}', "line 4: epoch must be 4, got 5"),
        ('{"stage": "hak", "epoch": 4, "loss": 0.1}', "line 4: 'hak' must be a stage of this"),
        ('{"stage": "hake", "epoch": 4}', "line 4: must hold loss"),
    ],
)
def test_damaged_metrics_are_named(copied: Path, line: str, problem: str) -> None:
    with (copied / "metrics.jsonl").open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(RunError, match=rf"metrics\.jsonl: {problem}"):
        write_report(copied)


def test_one_client_alone_is_trained_and_ranked(
    tmp_path: Path, make_dialogue: Callable[..., dict[str, Any]], write_redial: Callable[..., Path]
) -> None:
    data = write_corpus(tmp_path, make_dialogue, write_redial, clients=["00"])
    report = train(tiny_embedding(data), tmp_path / "run", Silent())
    assert report.results["clients"] == 1
    assert report.results["failures"]["tuned"] == 0


def test_nobody_who_likes_anything_cannot_be_learned_from(
    tmp_path: Path, make_dialogue: Callable[..., dict[str, Any]], write_redial: Callable[..., Path]
) -> None:
    films = {"1": "Film 1", "2": "Film 2"}
    dialogues = [make_dialogue(n, n, {"1": "liked"}, names=films) for n in (1, 2)]
    data = write_redial(tmp_path, dialogues, films)
    with pytest.raises(DataError, match="must hold a liked one, got none"):
        train(tiny_embedding(data), tmp_path / "run", Silent())
    assert list((tmp_path / "run").iterdir()) == []


def test_without_pykeen_one_line_says_what_to_install(
    copied: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (copied / "results.json").unlink()
    calls: Sequence[Callable[[], object]] = (
        lambda: train(tiny_embedding(data), tmp_path / "run", Silent()),
        lambda: resume(copied, Silent()),
        lambda: evaluate_run(copied, Silent()),
    )
    for call in calls:
        with pytest.raises(ConfigError, match=r"pip install pkgllm\[kge\]"):
            call()
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_study_of_embeddings(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    base = tiny_embedding(data).model_dump_json()
    Path("base.yaml").write_text(base)
    study = {
        "base": "base.yaml",
        "grid": {"dim": {4: [], 2: ["embedding.dim=2"]}},
        "models": ["tuned", "popularity"],
        "reference": {"dim": 4},
        "plot": {"x": "embedding.dim"},
    }
    Path("study.yaml").write_text(json.dumps(study))
    result = sweep("study.yaml", tmp_path / "out")
    assert result.failures == {}
    first, second = result.summary["points"]
    assert first["models"]["tuned"] != second["models"]["tuned"]
    assert "popularity" in result.summary["shared"]
    assert first["seconds"] > 0
    assert (tmp_path / "out" / "plot.png").is_file()
    Path("study.yaml").write_text(json.dumps({**study, "models": ["tuned", "base"]}))
    with pytest.raises(ConfigError, match=r"models must be ranked by the runs \(tuned, popular"):
        sweep("study.yaml", tmp_path / "out")


def test_its_data_are_built_as_those_of_a_language_model(data: Path, tmp_path: Path) -> None:
    config = tiny_embedding(data)
    assert len(build_data(config, tmp_path / "built", Silent()).splits) == 12
    assert load_any_config(str(tmp_path / "built" / "config.yaml")) == config


def test_two_seeds_of_one_setting_are_one_setting(
    embedded: Embedded, data: Path, tmp_path: Path
) -> None:
    _, path, report = embedded("hake")
    again = train(tiny_embedding(data), tmp_path / "again", Silent())
    assert asdict(again) | {"folder": 0} == asdict(report) | {"folder": 0}
    found = compare([path, tmp_path / "again"])
    assert found["settings"] == []
    assert "one setting, but not each with a seed of its own" in found["notes"][0]
