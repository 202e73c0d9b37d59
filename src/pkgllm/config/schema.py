"""The configuration: one frozen, typed tree. Unknown keys are errors; choices are tagged by name.

The sections live beside; this module is where others take them from.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pkgllm.config.data_sections import (
    Clients,
    Groups,
    Negatives,
    Prompt,
    RedialCorpus,
    SmallWorldCorpus,
    Split,
)
from pkgllm.config.evaluation_sections import Baselines, Evaluation, Lists
from pkgllm.config.mode_sections import (
    Centralized,
    DeploymentRuntime,
    FedAvg,
    Federated,
    Local,
    LocalRuntime,
    Mode,
)
from pkgllm.config.section import NotNegative, Section
from pkgllm.config.training_sections import (
    Adapter,
    ApoZero,
    BaseModelChoice,
    Dpo,
    Kto,
    Objective,
    Sdpo,
    Sft,
    Training,
)

__all__ = [
    "Adapter",
    "ApoZero",
    "BaseModelChoice",
    "Baselines",
    "Centralized",
    "Clients",
    "DeploymentRuntime",
    "Dpo",
    "Evaluation",
    "Experiment",
    "FedAvg",
    "Federated",
    "Groups",
    "Kto",
    "Lists",
    "Local",
    "LocalRuntime",
    "Mode",
    "Negatives",
    "NoPrivacy",
    "Objective",
    "Prompt",
    "RedialCorpus",
    "Sdpo",
    "Section",
    "Sft",
    "SmallWorldCorpus",
    "Split",
    "Training",
]


class NoPrivacy(Section):
    """No guarantee: updates leave the clients as they are."""

    name: Literal["none"]
    report_private_metrics: bool = False
    """Let losses and counts leave the clients; marks the run as not private."""


class Experiment(Section):
    """The whole run."""

    seed: NotNegative = 0
    """Every random stream of the run is derived from it."""
    corpus: Annotated[RedialCorpus | SmallWorldCorpus, Field(discriminator="name")]
    clients: Clients = Clients()
    split: Split = Split()
    base_model: BaseModelChoice
    adapter: Adapter = Adapter()
    prompt: Prompt = Prompt()
    groups: Groups = Groups()
    objective: Objective
    training: Training = Training()
    mode: Mode
    privacy: NoPrivacy = NoPrivacy(name="none")
    evaluation: Evaluation = Evaluation()
    output: str = "runs"
    """Folder in which the run folder is made; ``--output`` names the run folder itself."""

    @model_validator(mode="after")
    def _possible(self) -> "Experiment":
        problems = []
        if self.evaluation.part == "validation" and self.split.validation_share == 0:
            problems.append(
                "evaluation.part validation needs split.validation_share above 0, because nothing "
                "is held out for it; got 0"
            )
        if (
            self.mode.name == "federated"
            and self.mode.weighting == "examples"
            and not self.privacy.report_private_metrics
        ):
            problems.append(
                "mode.weighting examples sends private counts; set privacy.report_private_metrics "
                "to mark the run as not private, or use uniform"
            )
        if problems:
            raise ValueError("\n".join(problems))
        return self
