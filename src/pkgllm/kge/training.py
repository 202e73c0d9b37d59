"""Training of knowledge graph embeddings by PyKEEN's loop: seeded and resumable."""

import gc
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pykeen.models import InductiveNodePiece
from pykeen.sampling.filtering import Filterer
from pykeen.training import SLCWATrainingLoop, TrainingCallback
from pykeen.training.training_loop import NonFiniteLossError
from pykeen.triples import CoreTriplesFactory

from pkgllm.errors import ModelError, StoppedError
from pkgllm.files import cannot
from pkgllm.kge.checkpoints import loop_sections, restore_loop, training_identity
from pkgllm.kge.embedding import Embedding, Stage
from pkgllm.kge.exact_filter import ExactFilterer
from pkgllm.kge.integer_triples import IntegerTriples
from pkgllm.kge.pykeen_door import Model
from pkgllm.kge.settings import Schedule
from pkgllm.randomness import torch_seed
from pkgllm.runs.checkpoints import Checkpoints


@dataclass(frozen=True, slots=True, eq=False)
class Epoch:
    """An epoch that is done."""

    stage: str
    number: int
    """From 1."""
    loss: float
    """Mean over its steps."""
    model: Model
    """As it is now. It may be evaluated, and must not be changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageSetup:
    """Seed, device and checkpoints of the stages of a training, in one place or over clients."""

    seed: int
    """The run's seed."""
    device: str = "cpu"
    """On ``cpu`` the same seed gives the same bytes; on ``cuda`` sums may be added in any order."""
    keep: int = 2
    """Checkpoints of a stage that stay, at least 1."""
    on_stage: Callable[[str, int], None] = lambda stage, done: None
    """Called as a stage begins or is resumed, with its name and the epochs or rounds done."""
    stop_asked: Callable[[], bool] = lambda: False
    """Called after every epoch or round; where it returns true, training ends with a checkpoint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSetup(StageSetup):
    """How embeddings are trained in one place, with its callbacks."""

    folder: Path | None = None
    """Keeps checkpoints, one folder for each stage; None keeps none. It must exist."""
    checkpoint_every: int = 1
    """Epochs between checkpoints. There is one at the end and at a stop as well."""
    on_epoch: Callable[[Epoch], None] = lambda epoch: None
    """Called after every epoch, before its checkpoint."""

    def __post_init__(self) -> None:
        if self.checkpoint_every < 1:
            raise ValueError(f"checkpoint_every must be at least 1, got {self.checkpoint_every}")


def train_embeddings(choice: Embedding, triples: IntegerTriples, setup: TrainingSetup) -> Model:
    """Train a model, from the newest checkpoints of each of its stages where there are any.

    A run that was killed at any instant and is started again ends with the same bytes as one that
    was not, on ``cpu``. Where training is complete already, its result is loaded.

    Negatives are compared with ``triples`` alone. The returned model is in evaluation mode, on
    ``setup.device``.

    Raises:
        ModelError: If a loss is not finite, or the device cannot be used.
        StoppedError: If a stop was asked for.
        RunError: If checkpoints are of another training, or cannot be read or written.
    """
    model: Model | None = None
    for name in choice.schedules:
        model = train_stage(choice.stage(name, model), choice, triples, setup)
    assert model is not None, "an embedding has at least one stage"
    return model


def make_loop(
    schedule: Schedule,
    model: Model,
    factory: CoreTriplesFactory,
    *,
    known: Filterer | None = None,
) -> SLCWATrainingLoop:
    """Return PyKEEN's loop for a stage: Adam, and negatives that are no known triple.

    Args:
        schedule: Of the steps.
        model: What is trained.
        factory: What it learns from.
        known: Finds the known triples; None for those of ``factory``.
    """
    return SLCWATrainingLoop(
        model=model,
        triples_factory=factory,
        optimizer="adam",
        optimizer_kwargs={"lr": schedule.learning_rate, "weight_decay": schedule.weight_decay},
        lr_scheduler="step" if schedule.decay_every else None,
        lr_scheduler_kwargs={"step_size": schedule.decay_every, "gamma": schedule.decay_factor}
        if schedule.decay_every
        else None,
        # Its probing of batch sizes would draw random numbers.
        automatic_memory_optimization=False,
        mode="training" if isinstance(model, InductiveNodePiece) else None,
        negative_sampler="basic",
        negative_sampler_kwargs={
            "num_negs_per_pos": schedule.num_negatives,
            "filtered": True,
            "filterer": known or ExactFilterer,
        },
    )


def train_stage(
    stage: Stage, choice: Embedding, triples: IntegerTriples, setup: TrainingSetup
) -> Model:
    """Train one stage of a model; as :func:`train_embeddings`, which calls it for each."""
    identity = training_identity(choice, stage.name, setup.seed, triples.digest())
    # They hold a row for every training client.
    checkpoints = stage_checkpoints(setup.folder, stage.name, setup.keep) if setup.folder else None
    size = len(triples.triples) * (2 if stage.inverse else 1)
    with (
        own_randomness(setup.device, setup.seed, f"{choice.name}/{stage.name}"),
        tempfile.TemporaryDirectory() as aside,
    ):
        model = stage.model(triples, setup.seed).to(setup.device)
        factory = triples.factory(inverse=stage.inverse)
        loop = make_loop(stage.schedule, model, factory)
        newest = checkpoints.newest() if checkpoints else None
        setup.on_stage(stage.name, newest.position if newest else 0)
        if newest is not None:
            restore_loop(loop, newest, identity)
        try:
            loop.train(
                factory,
                num_epochs=stage.schedule.epochs,
                batch_size=min(stage.schedule.batch_size or size, size),
                continue_training=newest is not None,
                # PyKEEN makes such a folder whether it writes there or not.
                checkpoint_directory=aside,
                callbacks=[_AfterEpoch(stage, model, setup, checkpoints, identity)],
                use_tqdm=False,
                pin_memory=False,
            )
        except NonFiniteLossError as error:
            raise ModelError(
                f"{choice.name}, stage {stage.name}, epoch {loop._epoch + 1}: the loss must stay "
                f"finite, and did not; lower its learning rate, {stage.schedule.learning_rate} now"
            ) from error
    return model.eval()


def stage_checkpoints(folder: Path, stage: str, keep: int) -> Checkpoints:
    """Return the checkpoints of a stage, in a folder of its own below ``folder``.

    Raises:
        RunError: If the folder cannot be made.
    """
    place = folder / stage
    try:
        place.mkdir(exist_ok=True)
    except OSError as error:
        raise cannot("make", place, error) from error
    return Checkpoints(place, keep=keep)


@contextmanager
def own_randomness(device: str, seed: int, name: str) -> Iterator[None]:
    """Seed torch for a stage, silence PyKEEN, and restore the caller's random state afterwards.

    Args:
        device: Where the stage is trained.
        seed: The run's seed.
        name: Purpose of the random stream.

    Raises:
        ModelError: If the device cannot be used.
    """
    try:
        place = torch.device(device)
        devices = [torch.empty(0, device=place).device] if place.type == "cuda" else []
    except RuntimeError as error:
        raise ModelError(f"the device {device!r} cannot be used: {error}; choose cpu") from error
    with torch.random.fork_rng(devices=devices), warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="pykeen")
        # PyKEEN steps its schedulers by epoch, which torch has deprecated.
        warnings.filterwarnings("ignore", message=".*epoch parameter in `scheduler.step")
        # A restored schedule is stepped before its restored optimizer.
        warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
        torch.manual_seed(torch_seed(seed, "embeddings", name))
        # PyKEEN collects garbage after every epoch; older objects need not be scanned.
        gc.freeze()
        try:
            yield
        finally:
            gc.unfreeze()


class _AfterEpoch(TrainingCallback):
    """Reports every epoch, writes checkpoints, and stops where that was asked for."""

    def __init__(
        self,
        stage: Stage,
        model: Model,
        setup: TrainingSetup,
        checkpoints: Checkpoints | None,
        identity: str,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._stage = stage
        self._model = model
        self._setup = setup
        self._checkpoints = checkpoints
        self._identity = identity

    def post_epoch(self, epoch: int, epoch_loss: float, **kwargs: Any) -> None:
        """Do all three, in this order."""
        setup, last = self._setup, epoch == self._stage.schedule.epochs
        setup.on_epoch(Epoch(self._stage.name, epoch, epoch_loss, self._model))
        stop = setup.stop_asked() and not last
        if self._checkpoints and (stop or last or epoch % setup.checkpoint_every == 0):
            sections = loop_sections(self.training_loop, self._identity)
            self._checkpoints.write(epoch, sections)
        if stop:
            raise StoppedError(
                f"stopped after epoch {epoch} of {self._stage.schedule.epochs} of stage "
                f"{self._stage.name}, as asked"
                + (f"; resume in {setup.folder}" if setup.folder else "; no checkpoint was kept")
            )
