"""What training works with in every mode, and where it leaves its traces."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from peft import PeftModel

from pkgllm.checkpoints import Checkpoint, Checkpoints, Sections
from pkgllm.config import schema
from pkgllm.errors import StoppedError
from pkgllm.experiment.assembly import learning_rate
from pkgllm.experiment.observation import Observer
from pkgllm.experiment.trainers import make_trainer
from pkgllm.lm.adapter import AdapterState, adapter_state, load_adapter_state, save_adapter
from pkgllm.lm.base_model import BaseModel
from pkgllm.preferences.groups import Group
from pkgllm.progress import Progress
from pkgllm.runs import RunFolder
from pkgllm.training.local import CohortTrainer

Groups = Mapping[str, tuple[Group, ...]]

ADAPTER, STRATEGY = "adapter", "strategy"
"""Sections of a checkpoint."""


@dataclass(frozen=True, slots=True)
class Training:
    """What a policy is trained with, and where it leaves its traces."""

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

    @property
    def done(self) -> int:
        """Stretches of training that are done already."""
        return self.start.position if self.start else 0

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
        return make_trainer(
            self.config, self.policy, self.base, groups, self.run, local_steps=local_steps
        )

    def learning_rate(self, round_num: int) -> float:
        """Return the local step size of a round."""
        return learning_rate(self.config.training, self.config.mode.rounds, round_num)

    def keep(self, state: AdapterState) -> None:
        """Put an adapter into the policy and into the run folder."""
        load_adapter_state(self.policy, state)
        self.run.write_folder("adapter", lambda folder: save_adapter(self.policy, folder))


def detail(loss: float | None, update_norm: float | None = None) -> str:
    """Return what stands beside the progress of training."""
    parts = {"loss": loss, "update norm": update_norm}
    return ", ".join(f"{name} {value:.4f}" for name, value in parts.items() if value is not None)
