"""A client's part of a round: some epochs of PyKEEN's loop on its own graph."""

import tempfile
from collections.abc import Collection, Mapping

import torch
from pykeen.sampling.filtering import Filterer
from pykeen.training import SLCWATrainingLoop
from pykeen.training.training_loop import NonFiniteLossError
from torch import Tensor

from pkgllm.errors import ModelError
from pkgllm.kge.integer_triples import IntegerTriples
from pkgllm.kge.pykeen_door import Model
from pkgllm.kge.settings import Schedule
from pkgllm.kge.training import make_loop

Moments = Mapping[str, Tensor]
"""Adam's state, by the name of a table and of the state's part: ``table:exp_avg``."""

_PARTS = ("step", "exp_avg", "exp_avg_sq")
_SEPARATOR = ":"


def tables_of(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tables of tensors that hold moments as well."""
    return {name: value for name, value in state.items() if _SEPARATOR not in name}


def moments_of(moments: Moments, tables: Collection[str]) -> dict[str, Tensor]:
    """Return copies of the moments of some tables, on the CPU."""
    return {
        name: value.detach().to("cpu", copy=True)
        for name, value in moments.items()
        if name.rpartition(_SEPARATOR)[0] in tables
    }


def train_locally(
    model: Model,
    schedule: Schedule,
    triples: IntegerTriples,
    *,
    known: Filterer,
    epochs_before: int,
    epochs: int,
    moments: Moments,
) -> tuple[float, Moments]:
    """Train a model in place on what one client holds.

    Args:
        model: Begins with its present values.
        schedule: Of the steps; its ``epochs`` are not read.
        triples: What the client learns from now.
        known: Finds triples that must not be negatives: all facts that the client holds.
        epochs_before: Epochs after which the learning rate is that of the first epoch here.
        epochs: To train.
        moments: Adam's start for the tables that are in it; for the others it begins at zero. Other
            tensors in it are not read.

    Returns:
        The mean loss over the steps of the last epoch, and Adam's state of all tables: the
        optimizer's own tensors.

    Raises:
        ModelError: If a loss is not finite.
    """
    factory, size = triples.factory(), len(triples.triples)
    loop = make_loop(schedule, model, factory, known=known)
    _set_moments(loop, moments)
    loop._epoch = epochs_before
    if loop.lr_scheduler is not None:
        loop.lr_scheduler.step(epoch=epochs_before)
    try:
        # PyKEEN makes a folder of checkpoints whether it writes there or not.
        with tempfile.TemporaryDirectory() as folder:
            losses = loop.train(
                factory,
                num_epochs=epochs_before + epochs,
                batch_size=min(schedule.batch_size or size, size),
                # What the model begins with was trained elsewhere.
                continue_training=True,
                checkpoint_directory=folder,
                use_tqdm=False,
                pin_memory=False,
            )
    except NonFiniteLossError as error:
        raise ModelError(
            f"a client's loss must stay finite, and did not in epoch {loop._epoch + 1}; lower the "
            f"learning rate, {schedule.learning_rate} now"
        ) from error
    assert losses, "PyKEEN trains at least one epoch"
    return losses[-1], _moments(loop)


def _set_moments(loop: SLCWATrainingLoop, moments: Moments) -> None:
    """Set Adam's state of each table to the moments in the mapping, or else to zero."""
    state = {}
    for index, (name, parameter) in enumerate(_parameters(loop).items()):
        fresh = (torch.zeros(()), torch.zeros_like(parameter), torch.zeros_like(parameter))
        state[index] = {
            part: moments.get(f"{name}{_SEPARATOR}{part}", start).clone()
            for part, start in zip(_PARTS, fresh, strict=True)
        }
    groups = loop.optimizer.state_dict()["param_groups"]
    loop.optimizer.load_state_dict({"state": state, "param_groups": groups})


def _moments(loop: SLCWATrainingLoop) -> Moments:
    return {
        f"{name}{_SEPARATOR}{part}": loop.optimizer.state[parameter][part]
        for name, parameter in _parameters(loop).items()
        for part in _PARTS
    }


def _parameters(loop: SLCWATrainingLoop) -> dict[str, Tensor]:
    """Return the trained parameters by name, in the optimizer's order."""
    return {
        name: parameter
        for name, parameter in loop.model.named_parameters()
        if parameter.requires_grad
    }
