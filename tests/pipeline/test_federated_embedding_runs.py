"""Runs of embeddings over clients: what they leave, how they go on, and what they are asked."""

import json
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from helpers.run_files import predictions, read_json, read_metrics
from helpers.tiny_corpus import FILMS
from helpers.tiny_embeddings import Deadly, Killed, tiny_embedding
from pkgllm.config.schema import EmbeddingExperiment
from pkgllm.errors import DataError, ModelError, StoppedError
from pkgllm.pipeline.evaluate import evaluate_run
from pkgllm.pipeline.train import resume, train
from pkgllm.progress import Advance, Silent

pytest_plugins = ["helpers.finished_runs"]

MODE: dict[str, Any] = {
    "name": "federated",
    "exchange": "fede",
    "cohort_size": 2,
    "public_facts": 8,
}
SAME = ("config.yaml", "split.json", "metrics.jsonl", "predictions.jsonl", "participation.json")

Federated = Callable[..., EmbeddingExperiment]


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Public facts of every film."""
    path = tmp_path_factory.mktemp("facts") / "movie_facts.json"
    genres = {film: {"genre": [f"genre {n % 3}"]} for n, film in enumerate(FILMS)}
    path.write_text(json.dumps(genres), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def federated(data: Path, facts: Path) -> Federated:
    def config(name: str = "hake", **mode: Any) -> EmbeddingExperiment:
        corpus = {"name": "redial", "folder": str(data), "movie_facts": str(facts)}
        return tiny_embedding(data, name, mode={**MODE, **mode}, corpus=corpus)

    return config


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, federated: Federated) -> Path:
    """A run of HAKE that nobody changes."""
    path = tmp_path_factory.mktemp("federated") / "hake"
    train(federated(), path, Silent(), keep=1)
    return path


def content(run: Path) -> dict[str, bytes]:
    files = [run / name for name in (*SAME, "embedding.safetensors")]
    files += sorted((run / "stages").rglob("*.safetensors"))
    return {str(path.relative_to(run)): path.read_bytes() for path in files}


def test_a_run_tells_its_rounds_and_who_took_part(finished: Path) -> None:
    records = read_metrics(finished)
    assert [(record["stage"], record["round"]) for record in records] == [
        ("hake", round_num) for round_num in (1, 2, 3)
    ]
    drawn = [client for record in records for client in record["cohort"]]
    found = read_json(finished / "participation.json")["hake"]
    assert found["rounds"] == {client: drawn.count(client) for client in found["rounds"]}
    assert found["coverage"] == len(set(drawn)) / len(found["rounds"])
    notes = " ".join(read_json(finished / "results.json")["notes"])
    assert "exchange fede" in notes
    assert f"{found['coverage']:.0%} took part" in notes
    assert "stay at the start" in notes


def test_what_the_server_has_holds_no_person(finished: Path) -> None:
    tables = load_file(finished / "embedding.safetensors")
    note = next(n for n in read_json(finished / "results.json")["notes"] if "entities" in n)
    entities = int(note.split("; ")[1].split()[0])
    persons = len(read_json(finished / "participation.json")["hake"]["rounds"])
    rows = {len(t) for name, t in tables.items() if "entity_representations" in name}
    assert rows == {entities - persons}
    assert not any("relation_representations" in name for name in tables)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hake", "kbgat"])
def test_a_killed_run_goes_on_to_the_same_bytes(
    name: str, finished: Path, federated: Federated, tmp_path: Path
) -> None:
    config = federated(name)
    whole = finished
    if name != "hake":
        whole = tmp_path / "whole"
        train(config, whole, Silent(), keep=1)
    run = tmp_path / "run"
    with pytest.raises(Killed):
        train(config, run, Deadly("training", 2), keep=1)
    with pytest.raises(Killed):
        resume(run, Deadly("training", 3), keep=1)
    resume(run, Silent(), keep=1)
    assert content(run) == content(whole)


def test_a_finished_training_is_asked_again_and_not_trained_again(
    finished: Path, tmp_path: Path
) -> None:
    (report,) = evaluate_run(finished, Silent(), output=tmp_path / "again")
    assert predictions(report.folder) == predictions(finished)
    run = Path(shutil.copytree(finished, tmp_path / "copied"))
    (run / "results.json").unlink()
    resume(run, Deadly("training", 1), keep=1)
    assert content(run) == content(finished)


def test_lost_checkpoints_are_named(finished: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "copied"))
    shutil.rmtree(run / "stages" / "hake" / "checkpoints")
    with pytest.raises(ModelError, match="must hold the checkpoint of the last round"):
        evaluate_run(run, Silent(), output=tmp_path / "again")


def test_too_few_clients_are_told_before_training(federated: Federated, tmp_path: Path) -> None:
    config = federated(cohort_size=99)
    with pytest.raises(DataError, match="cohort_size must be at most the number of training"):
        train(config, tmp_path / "run", Silent(), keep=1)


class Stopping:
    """Progress that asks to stop, as Ctrl-C does, while the second round is told of."""

    @contextmanager
    def track(self, description: str, total: int) -> Iterator[Advance]:
        told = 0

        def advance(detail: str = "") -> None:
            nonlocal told
            told += 1
            if told == 2:
                signal.raise_signal(signal.SIGINT)

        yield advance


def test_control_c_ends_after_a_rounds_checkpoint(
    finished: Path, federated: Federated, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    with pytest.raises(StoppedError, match=f"go on with: pkgllm train --resume {run}"):
        train(federated(), run, Stopping(), keep=1)
    assert len(read_metrics(run)) == 2
    resume(run, Silent(), keep=1)
    assert content(run) == content(finished)
