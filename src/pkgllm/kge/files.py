"""A trained embedding as one file."""

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from pkgllm.errors import ModelError
from pkgllm.files import write_atomically
from pkgllm.kge.checkpoints import own_copy, training_identity
from pkgllm.kge.embedding import Embedding
from pkgllm.kge.federated_embeddings import FederatedEmbeddings
from pkgllm.kge.integer_triples import IntegerTriples
from pkgllm.kge.pykeen_door import Model
from pkgllm.randomness import torch_seed

_IDENTITY = "identity"
_WHOLE = "whole"


def save_embeddings(
    model: Model, path: Path, choice: Embedding, triples: IntegerTriples, *, seed: int
) -> None:
    """Write a trained model, with the row of every training client, for its owner alone.

    Args:
        model: As training returned it.
        path: The file.
        choice: What was trained.
        triples: What it learned from.
        seed: The run's seed.

    Raises:
        RunError: If it cannot be written; an earlier file is unharmed.
    """
    # A copy each: some models have the same tensor under two names, which safetensors refuses.
    tensors = {name: own_copy(value) for name, value in model.state_dict().items()}
    identity = training_identity(choice, _WHOLE, seed, triples.digest())
    write_atomically(path, save(tensors, {_IDENTITY: identity}))


def load_embeddings(
    path: Path,
    choice: Embedding,
    triples: IntegerTriples,
    *,
    seed: int,
    device: torch.device,
) -> Model:
    """Read what :func:`save_embeddings` wrote, in evaluation mode.

    Args:
        path: The file.
        choice: What was trained.
        triples: What it learned from.
        seed: The run's seed.
        device: Where the model goes.

    Raises:
        ModelError: If the file cannot be read, or is of other settings, triples or another seed.
    """
    try:
        with safe_open(path, framework="pt") as file:
            identity = (file.metadata() or {}).get(_IDENTITY)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: cannot be read: {error}; train the embedding again") from error
    if identity != training_identity(choice, _WHOLE, seed, triples.digest()):
        raise ModelError(
            f"{path}: the embedding must be of these settings, triples and seed, and was trained "
            "with others; restore the data and the configuration of its run, or train again"
        )
    with torch.random.fork_rng(devices=[]):
        # What is drawn here is overwritten, all but what the seed alone decides.
        torch.manual_seed(torch_seed(seed, "embeddings", choice.name))
        model = choice.untrained(triples, seed)
    model.load_state_dict(tensors)
    return model.to(device).eval()


def save_server_tables(trained: FederatedEmbeddings, path: Path) -> None:
    """Write what the server of a federation has at the end: by stage and table, of no person.

    Args:
        trained: The trained embeddings; in isolation the server has no table.
        path: The file.

    Raises:
        RunError: If it cannot be written; an earlier file is unharmed.
    """
    tables = {
        f"{name}/{table}": value
        for name, stage in trained.stages.items()
        for table, value in stage.server.items()
    }
    write_atomically(path, save(tables))
