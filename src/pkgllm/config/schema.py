"""The configuration: one frozen, typed tree. Unknown keys are errors; choices are tagged by name.

The sections live beside; this module is where others take them from.
"""

from typing import Annotated

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
from pkgllm.config.mode_sections import Centralized, FedAvg, Federated, Local, Mode
from pkgllm.config.privacy_rules import privacy_problems
from pkgllm.config.privacy_sections import (
    AdaptiveClipping,
    ClientPrivacy,
    ExamplePrivacy,
    NoPrivacy,
    Privacy,
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
    "AdaptiveClipping",
    "ApoZero",
    "BaseModelChoice",
    "Baselines",
    "Centralized",
    "ClientPrivacy",
    "Clients",
    "Dpo",
    "Evaluation",
    "ExamplePrivacy",
    "Experiment",
    "FedAvg",
    "Federated",
    "Groups",
    "Kto",
    "Lists",
    "Local",
    "Mode",
    "Negatives",
    "NoPrivacy",
    "Objective",
    "Privacy",
    "Prompt",
    "RedialCorpus",
    "Sdpo",
    "Section",
    "Sft",
    "SmallWorldCorpus",
    "Split",
    "Training",
]


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
    privacy: Privacy = NoPrivacy(name="none")
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
        problems += privacy_problems(self.privacy, self.objective, self.mode, self.training.engine)
        if problems:
            raise ValueError("\n".join(problems))
        return self
