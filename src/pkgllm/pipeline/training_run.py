"""What training works with in every mode, and where it writes."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from peft import PeftModel

from pkgllm.config import schema
from pkgllm.errors import FederationError, StoppedError
from pkgllm.interrupts import after_this_round
from pkgllm.lm.adapter import AdapterState, adapter_state, load_adapter_state, save_adapter
from pkgllm.lm.base_model import BaseModel
from pkgllm.pipeline.privacy import client_guarantee, run_privacy
from pkgllm.pipeline.run_record import record_adapter
from pkgllm.pipeline.trainers import make_trainer
from pkgllm.privacy.example_level import ExampleRelease
from pkgllm.privacy.noise import NoiseSource
from pkgllm.privacy.run_privacy import RunPrivacy
from pkgllm.privacy.statements import GUARANTEE
from pkgllm.progress import Progress
from pkgllm.prompts.groups import Group
from pkgllm.runs.checkpoints import Checkpoint, Checkpoints, Sections
from pkgllm.runs.folder import RunFolder
from pkgllm.runs.observer import Observer
from pkgllm.training.local import CohortTrainer, KlBaseline, no_baseline

logger = logging.getLogger(__name__)

Groups = Mapping[str, tuple[Group, ...]]

ADAPTER, STRATEGY = "adapter", "strategy"
"""Sections of a checkpoint."""


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """What a policy is trained with, and where it writes."""

    config: schema.Experiment
    policy: PeftModel
    base: BaseModel
    groups: Groups
    run: RunFolder
    progress: Progress
    observer: Observer
    checkpoints: Checkpoints
    start: Checkpoint | None = None
    """Where to go on."""
    stop_asked: Callable[[], bool] = lambda: False
    """Whether to end after the next checkpoint."""
    privacy: RunPrivacy | None = None
    """What is guaranteed and counted here; None for nothing, or where each client counts."""
    kl_baseline: KlBaseline = no_baseline
    """Of each round, for an objective that does not estimate it from its own batches."""

    @property
    def done(self) -> int:
        """Stretches of training that are done already."""
        return self.start.position if self.start else 0

    @property
    def reports_losses(self) -> bool:
        """Whether a loss may be written down where everybody's examples are in one place."""
        privacy = self.config.privacy
        return not privacy.adds_noise or privacy.report_private_metrics

    def state(self, name: str = ADAPTER) -> AdapterState:
        """Return an adapter of the checkpoint to go on from, or else the policy's."""
        return self.start.section(name) if self.start else adapter_state(self.policy)

    def checkpoint(self, position: int, sections: Sections, *, last: bool) -> None:
        """Write a checkpoint, and end there if that was asked for.

        Raises:
            StoppedError: If training ends here although it is not done.
        """
        self.checkpoints.write(position, sections)
        if self.stop_asked() and not last:
            raise StoppedError(
                f"stopped after a checkpoint; go on with: pkgllm train --resume {self.run.path}"
            )

    def trainer(self, groups: Groups, *, local_steps: int) -> CohortTrainer:
        """Return the engine for some groups."""
        release = None
        if self.privacy is not None and self.privacy.unit.hides_examples:
            release = ExampleRelease(
                self.privacy.noise_multiplier, self.privacy.noise, self.privacy.charge
            )
        return make_trainer(
            self.config,
            self.policy,
            self.base,
            groups,
            self.run,
            local_steps=local_steps,
            release=release,
        )

    def learning_rate(self, round_num: int) -> float:
        """Return the local step size of a round."""
        return self.config.training.learning_rate_of(round_num, rounds=self.config.mode.rounds)

    def keep(self, state: AdapterState) -> None:
        """Put an adapter into the policy and into the run folder, with what was spent on it."""
        load_adapter_state(self.policy, state)
        counted = self.privacy.guarantee if self.privacy else None
        if guarantee := counted or client_guarantee(self.config):
            self.run.write_json(GUARANTEE, asdict(guarantee))
        self.run.write_folder("adapter", lambda folder: save_adapter(self.policy, folder))
        record_adapter(self.run)


@contextmanager
def going_on(
    config: schema.Experiment,
    policy: PeftModel,
    base: BaseModel,
    groups: Groups,
    run: RunFolder,
    progress: Progress,
    *,
    keep: int,
    num_groups: Mapping[str, int],
    noise: NoiseSource,
    kl_baseline: KlBaseline = no_baseline,
    validation: Callable[[AdapterState], Mapping[str, float]] | None = None,
    from_round: int | None = None,
) -> Iterator[TrainingRun]:
    """Yield what trains from the newest checkpoint, or from the start where there is none.

    ``from_round`` goes back to the checkpoint of that round; what a ledger was charged since stays
    charged.

    ``num_groups`` counts the groups of each training client; ``groups`` are those known here.

    Inside, the folder is this process's own, and the first Ctrl-C or SIGTERM asks for an end after
    the round in flight.

    Raises:
        RunError: If another process trains in the folder, or no checkpoint can be read.
        FederationError: As raised inside, with what to do once its cause is mended.
    """

    def tell() -> None:
        logger.warning("stopping after this round; once more stops at once")

    with run.occupied(), after_this_round(tell) as stop_asked:
        checkpoints = Checkpoints(run.path, keep=keep)
        if from_round is None:
            start = checkpoints.newest()
        else:
            start = checkpoints.go_back(from_round)
            logger.warning("the run goes back to round %d", from_round)
        checkpoints.rewind(start)
        observer = Observer(
            run,
            validation,
            evaluate_every=config.observation.evaluate_every,
            tensorboard=config.observation.tensorboard,
        )
        privacy = run_privacy(config, run.path, num_groups, noise, start)
        try:
            yield TrainingRun(
                config,
                policy,
                base,
                groups,
                run,
                progress,
                observer,
                checkpoints,
                start=start,
                stop_asked=stop_asked,
                privacy=privacy,
                kl_baseline=kl_baseline,
            )
        except FederationError as error:
            raise FederationError(
                f"{error}; once that is mended, go on with: pkgllm train --resume {run.path}"
            ) from error
        finally:
            observer.close()


def detail(loss: float | None, update_norm: float | None = None) -> str:
    """Return what stands beside the progress of training."""
    parts = {"loss": loss, "update norm": update_norm}
    return ", ".join(f"{name} {value:.4f}" for name, value in parts.items() if value is not None)
