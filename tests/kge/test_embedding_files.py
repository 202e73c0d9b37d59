from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.embedding_choices import CHOICES, HAKE, SEED, ring
from pkgllm.errors import ModelError
from pkgllm.kge.embedding import Embedding
from pkgllm.kge.files import load_embeddings, save_embeddings
from pkgllm.kge.integer_triples import IntegerTriples
from pkgllm.kge.pykeen_door import Model
from pkgllm.kge.training import TrainingSetup, train_embeddings

CPU = torch.device("cpu")


def saved(choice: Embedding, path: Path) -> Model:
    model = train_embeddings(choice, ring(), TrainingSetup(seed=SEED))
    save_embeddings(model, path, choice, ring(), seed=SEED)
    return model


@pytest.mark.parametrize("choice", CHOICES, ids=lambda choice: choice.name)
def test_what_is_loaded_scores_as_what_was_saved(choice: Embedding, tmp_path: Path) -> None:
    model = saved(choice, tmp_path / "model")
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    loaded = load_embeddings(tmp_path / "model", choice, ring(), seed=SEED, device=CPU)
    assert torch.rand(1) == expected
    assert not loaded.training
    triples = torch.from_numpy(ring().triples)
    mode: Any = "training" if choice.name == "node_piece" else None
    with torch.no_grad():
        assert torch.equal(
            loaded.score_hrt(triples, mode=mode), model.score_hrt(triples, mode=mode)
        )


def test_rows_of_persons_are_for_the_owner_alone(tmp_path: Path) -> None:
    model = train_embeddings(HAKE, ring(), TrainingSetup(seed=SEED, folder=tmp_path))
    save_embeddings(model, tmp_path / "model", HAKE, ring(), seed=SEED)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 1
    assert not any(path.stat().st_mode & 0o077 for path in files)


@pytest.mark.parametrize(
    ("choice", "triples", "seed"),
    [
        (replace(HAKE, margin=1.0), ring(), SEED),
        (HAKE, ring(size=13), SEED),
        (HAKE, ring(), SEED + 1),
    ],
    ids=["settings", "triples", "seed"],
)
def test_a_model_of_something_else_is_refused(
    choice: Embedding, triples: IntegerTriples, seed: int, tmp_path: Path
) -> None:
    saved(HAKE, tmp_path / "model")
    with pytest.raises(ModelError, match="must be of these settings, triples and seed"):
        load_embeddings(tmp_path / "model", choice, triples, seed=seed, device=CPU)


@pytest.mark.parametrize("content", [None, b"", b"torn"])
def test_a_damaged_file_is_named(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "model"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=r"model: cannot be read: .*; train the embedding again"):
        load_embeddings(path, HAKE, ring(), seed=SEED, device=CPU)
