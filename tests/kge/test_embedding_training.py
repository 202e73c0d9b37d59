import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers.embedding_choices import CHOICES, HAKE, KBGAT, SCHEDULE, SEED, ring
from pkgllm.errors import ModelError, RunError, StoppedError
from pkgllm.interrupts import after_this_round
from pkgllm.kge.embedding import Embedding
from pkgllm.kge.integer_triples import IntegerTriples
from pkgllm.kge.kbgat_encoder import AttentionEncoder
from pkgllm.kge.pykeen_door import single_vectors
from pkgllm.kge.training import (
    Epoch,
    TrainingSetup,
    make_loop,
    train_embeddings,
    train_stage,
)


def content(model: torch.nn.Module) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in model.state_dict().items()}


def train(choice: Embedding, **setup: Any) -> dict[str, bytes]:
    return content(train_embeddings(choice, ring(), TrainingSetup(**{"seed": SEED} | setup)))


class Killed(BaseException):
    """No error that anybody would handle."""


def killing(stage: str, number: int) -> Callable[[Epoch], None]:
    """Kill the process's work when an epoch is done, before its checkpoint is written."""

    def on_epoch(epoch: Epoch) -> None:
        if (epoch.stage, epoch.number) == (stage, number):
            raise Killed

    return on_epoch


@pytest.mark.parametrize("choice", CHOICES, ids=lambda choice: choice.name)
def test_a_seed_gives_the_same_bytes_and_leaves_the_caller_s_stream_alone(
    choice: Embedding,
) -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first = train(choice)
    assert torch.rand(1) == expected
    assert train(choice) == first
    assert train(choice, seed=8) != first


@pytest.mark.parametrize(
    ("choice", "stage"),
    [(HAKE, "hake"), (KBGAT, "transe"), (KBGAT, "attention"), (KBGAT, "decoder")]
    + [(choice, choice.name) for choice in CHOICES[2:]],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_a_run_killed_at_any_epoch_ends_with_the_same_bytes(
    choice: Embedding, stage: str, tmp_path: Path
) -> None:
    undisturbed = train(choice)
    for epoch in (1, 2, 3):
        with pytest.raises(Killed):
            train(choice, folder=tmp_path, on_epoch=killing(stage, epoch))
    again: list[tuple[str, int]] = []
    resumed = train(
        choice, folder=tmp_path, on_epoch=lambda epoch: again.append((epoch.stage, epoch.number))
    )
    assert resumed == undisturbed
    # What had a checkpoint was not done again: the last kill came before the last epoch's.
    assert again[0] == (stage, 3)


def test_checkpoints_may_be_rarer_and_a_finished_training_is_loaded(tmp_path: Path) -> None:
    undisturbed = train(HAKE)
    setup: dict[str, Any] = {"folder": tmp_path, "checkpoint_every": 2}
    with pytest.raises(Killed):
        train(HAKE, on_epoch=killing("hake", 2), **setup)
    epochs: list[int] = []
    setup["on_epoch"] = lambda epoch: epochs.append(epoch.number)
    assert train(HAKE, **setup) == undisturbed
    assert epochs == [1, 2, 3]
    assert train(HAKE, **setup) == undisturbed
    assert epochs == [1, 2, 3]


def test_every_epoch_is_reported_with_its_loss_and_training_learns() -> None:
    epochs: list[Epoch] = []
    choice = replace(HAKE, schedule=replace(SCHEDULE, epochs=30))
    train(choice, on_epoch=epochs.append)
    assert [(e.stage, e.number) for e in epochs] == [("hake", number) for number in range(1, 31)]
    assert epochs[-1].loss < 0.8 * epochs[0].loss


def test_control_c_ends_after_the_epoch_s_checkpoint(tmp_path: Path) -> None:
    undisturbed = train(KBGAT)

    def interrupt(epoch: Epoch) -> None:
        if (epoch.stage, epoch.number) == ("attention", 2):
            signal.raise_signal(signal.SIGINT)

    with (
        after_this_round(lambda: None) as stop_asked,
        pytest.raises(StoppedError, match=r"after epoch 2 of 3 of stage attention.*resume in"),
    ):
        train(KBGAT, folder=tmp_path, on_epoch=interrupt, stop_asked=stop_asked, checkpoint_every=9)
    again: list[tuple[str, int]] = []
    resumed = train(
        KBGAT, folder=tmp_path, on_epoch=lambda epoch: again.append((epoch.stage, epoch.number))
    )
    assert resumed == undisturbed
    assert again[0] == ("attention", 3)


def test_a_stop_without_a_folder_says_that_nothing_was_kept() -> None:
    with pytest.raises(StoppedError, match="no checkpoint was kept"):
        train(HAKE, stop_asked=lambda: True)


@pytest.mark.parametrize(
    "other",
    [
        lambda folder: train(replace(HAKE, margin=8.0), folder=folder),
        lambda folder: train(HAKE, folder=folder, seed=8),
        lambda folder: train_embeddings(HAKE, ring(10), TrainingSetup(seed=7, folder=folder)),
    ],
    ids=["settings", "seed", "triples"],
)
def test_checkpoints_of_another_training_are_refused(
    other: Callable[[Path], object], tmp_path: Path
) -> None:
    train(HAKE, folder=tmp_path)
    with pytest.raises(RunError, match="of other settings, other triples or another seed"):
        other(tmp_path)


def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path) -> None:
    undisturbed = train(HAKE, folder=tmp_path)
    newest = max((tmp_path / "hake" / "checkpoints").iterdir())
    newest.write_bytes(newest.read_bytes()[:-100])
    assert train(HAKE, folder=tmp_path) == undisturbed


def test_a_loss_that_is_not_finite_ends_training_with_advice() -> None:
    wild = replace(HAKE, schedule=replace(SCHEDULE, learning_rate=1e30))
    with pytest.raises(ModelError, match=r"hake, stage hake, epoch .*lower its learning rate"):
        train(wild)


def test_a_device_that_is_not_there_is_named() -> None:
    with pytest.raises(ModelError, match="the device 'nonsense' cannot be used"):
        train(HAKE, device="nonsense")


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=f"cannot make {tmp_path}/nowhere/hake"):
        train(HAKE, folder=tmp_path / "nowhere")


def test_attention_starts_at_transe_and_the_decoder_leaves_its_vectors_alone() -> None:
    triples, setup = ring(), TrainingSetup(seed=7)
    transe = KBGAT.stage("transe", None).model(triples, 7)
    attention = KBGAT.stage("attention", transe).model(triples, 7).eval()
    (entities,) = attention.entity_representations
    encoder = entities.encoder
    assert isinstance(encoder, AttentionEncoder)
    assert torch.equal(encoder.entities, single_vectors(transe)[0])
    assert torch.equal(encoder.relations, single_vectors(transe)[1])
    before = [vectors.clone() for vectors in single_vectors(attention)]
    alone = replace(SCHEDULE, epochs=2)
    stage = replace(KBGAT.stage("decoder", attention), schedule=alone)
    decoder = train_stage(stage, KBGAT, triples, setup)
    for after, expected in zip(single_vectors(decoder), before, strict=True):
        assert torch.equal(after, expected)
    trained = train_embeddings(KBGAT, triples, setup)
    assert [name for name, p in trained.named_parameters() if p.requires_grad] == [
        "interaction.conv.weight",
        "interaction.conv.bias",
        "interaction.linear.weight",
        "interaction.linear.bias",
    ]


def test_negatives_are_compared_with_training_triples_and_nothing_else() -> None:
    generator = np.random.default_rng(0)
    dense = generator.integers(0, [8, 2, 8], size=(70, 3))
    triples = IntegerTriples(dense, num_entities=8, num_relations=2)
    factory = triples.factory()
    loop = make_loop(replace(SCHEDULE, num_negatives=200), HAKE.untrained(triples, 0), factory)
    torch.manual_seed(0)
    loader = loop._create_training_data_loader(
        factory, sampler=None, batch_size=70, drop_last=False
    )
    known = {tuple(triple) for triple in triples.triples.tolist()}
    (batch,) = loader
    proposed = {tuple(triple) for triple in batch["negatives"].flatten(0, 1).tolist()}
    kept = {tuple(triple) for triple in batch["negatives"][batch["masks"]].tolist()}
    # Some are left out, those that are known, and nothing that a later test may ask for.
    assert proposed & known
    assert kept == proposed - known


def test_checkpoint_every_is_checked() -> None:
    with pytest.raises(ValueError, match="checkpoint_every must be at least 1, got 0"):
        TrainingSetup(seed=0, checkpoint_every=0)
