"""A PyKEEN training loop as tensors, so that a resumed training has the same result."""

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from pykeen.training import TrainingLoop
from torch import Tensor

from pkgllm.errors import RunError
from pkgllm.runs.checkpoints import Checkpoint, Sections


def training_identity(*settings: object) -> str:
    """Return a SHA-256 of all that a training's result depends on, hexadecimal.

    Args:
        settings: What is trained, how, with which seed and from what; each with a ``repr`` that
            says all of it.
    """
    return hashlib.sha256(" ".join(map(str, settings)).encode()).hexdigest()


def loop_sections(loop: TrainingLoop[Any], identity: str) -> Sections:
    """Return the state of a loop at the end of an epoch.

    It holds Adam's moments, the random streams and the losses; the learning rate follows from the
    epoch. ``identity`` is that of :func:`training_identity`.
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
    """Restore the state of a loop that is not trained yet, and the random streams.

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
    """Refuse to resume from the checkpoint of another training.

    Args:
        progress: A checkpoint's section that holds ``identity``.
        identity: Of what is to be trained now, hexadecimal.

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
