"""A PyKEEN training loop as tensors, so that it goes on as if it had never stopped."""

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from pykeen.training import TrainingLoop
from torch import Tensor

from pkgllm.errors import RunError
from pkgllm.kge.integer_triples import IntegerTriples
from pkgllm.runs.checkpoints import Checkpoint, Sections


def training_identity(choice: object, stage: str, seed: int, triples: IntegerTriples) -> str:
    """Return a SHA-256 of what is trained, how, and from what, hexadecimal.

    Args:
        choice: The model and all its settings.
        stage: The name of the stage of training.
        seed: The run's seed.
        triples: What it learns from.
    """
    told = f"{choice!r} {stage} {seed} {triples.digest()}"
    return hashlib.sha256(told.encode()).hexdigest()


def loop_sections(loop: TrainingLoop[Any], identity: str) -> Sections:
    """Return what a loop has come to at the end of an epoch.

    Adam's moments, the random streams and the losses are among it; the learning rate is not, which
    follows from the epoch.

    Args:
        loop: The training loop.
        identity: SHA-256 of what it trains and how, hexadecimal.
    """
    random = {"cpu": torch.random.get_rng_state()}
    if loop.device.type == "cuda":
        random["cuda"] = torch.cuda.get_rng_state(loop.device)
    return {
        # A copy each: CompGCN has the same tensors under two names, which safetensors refuses.
        "model": {name: own_copy(value) for name, value in loop.model.state_dict().items()},
        "optimizer": {
            f"{parameter}.{name}": own_copy(value)
            for parameter, state in loop.optimizer.state_dict()["state"].items()
            for name, value in state.items()
        },
        "random": random,
        "progress": {
            "losses": torch.tensor(loop.losses_per_epochs, dtype=torch.float64),
            "identity": identity_tensor(identity),
        },
    }


def restore_loop(loop: TrainingLoop[Any], checkpoint: Checkpoint, identity: str) -> None:
    """Bring a fresh loop, and the random streams, to where they were.

    Args:
        loop: Not trained yet, of the same model and optimizer.
        checkpoint: As :func:`loop_sections` made it.
        identity: Of what is to be trained now.

    Raises:
        RunError: If the checkpoint is of another model, other triples or another seed.
    """
    progress = checkpoint.section("progress")
    check_identity(progress, identity)
    loop.model.load_state_dict(checkpoint.section("model"))
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in checkpoint.section("optimizer").items():
        parameter, name = key.split(".", 1)
        state.setdefault(int(parameter), {})[name] = value
    groups = loop.optimizer.state_dict()["param_groups"]
    loop.optimizer.load_state_dict({"state": state, "param_groups": groups})
    loop.losses_per_epochs = progress["losses"].tolist()
    loop._epoch = checkpoint.position
    if loop.lr_scheduler is not None:
        loop.lr_scheduler.step(epoch=checkpoint.position)
    random = checkpoint.section("random")
    torch.random.set_rng_state(random["cpu"])
    if loop.device.type == "cuda" and "cuda" in random:
        torch.cuda.set_rng_state(random["cuda"], loop.device)


def identity_tensor(identity: str) -> Tensor:
    """Return a SHA-256, hexadecimal, as a checkpoint keeps it."""
    return torch.frombuffer(bytearray.fromhex(identity), dtype=torch.uint8)


def check_identity(progress: Mapping[str, Tensor], identity: str) -> None:
    """Refuse to go on from what another training left.

    Args:
        progress: A checkpoint's section that holds ``identity``.
        identity: SHA-256 of what is to be trained now, hexadecimal.

    Raises:
        RunError: If they differ.
    """
    if progress["identity"].numpy().tobytes().hex() != identity:
        raise RunError(
            "the checkpoints in this folder are of other settings, other triples or another seed "
            "than this training; choose another folder, or restore what they were made with"
        )


def own_copy(value: Tensor) -> Tensor:
    """Return the numbers in memory of their own, on the CPU."""
    return value.detach().to("cpu", copy=True).contiguous()
