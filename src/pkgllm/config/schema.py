"""The configuration: one frozen, typed tree. Unknown keys are errors; choices are tagged by name.

The sections live beside; this module is where others take them from.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import model_validator

from pkgllm.config.choices import ChosenFrom, Settings, choices_in
from pkgllm.config.evaluation_sections import Evaluation
from pkgllm.config.mode_sections import (
    Centralized,
    DeploymentRuntime,
    Federated,
    Local,
    LocalRuntime,
    Mode,
    RayRuntime,
)
from pkgllm.config.observation_sections import Observation
from pkgllm.config.runtime_rules import runtime_problems
from pkgllm.config.section import NotNegative, Section
from pkgllm.config.training_sections import (
    Adapter,
    BaseModelChoice,
    EmbeddingTraining,
    Training,
)
from pkgllm.corpora import CORPORA
from pkgllm.corpora.reader import CorpusReader
from pkgllm.corpora.settings import Clients, Split
from pkgllm.federation.algorithms.aggregation import aggregation_problems
from pkgllm.kge.embedding import Embedding
from pkgllm.kge.embeddings import EMBEDDINGS
from pkgllm.kge.settings import EMBEDDING_MODES, EmbeddingMode, FoldIn, PooledGraph
from pkgllm.objectives import OBJECTIVES
from pkgllm.objectives.objective import Objective
from pkgllm.privacy.unit import PrivacyUnit
from pkgllm.privacy.units import PRIVACY_UNITS
from pkgllm.privacy.units.none import NoPrivacy
from pkgllm.prompts.partition import PARTITIONS
from pkgllm.prompts.partition.by_client import ByClient
from pkgllm.prompts.partition.partition import Partition
from pkgllm.prompts.settings import GroupSettings, PromptSettings, SyntheticSettings

__all__ = [
    "KINDS",
    "Adapter",
    "AnyExperiment",
    "BaseModelChoice",
    "Centralized",
    "DeploymentRuntime",
    "EmbeddingExperiment",
    "EmbeddingTraining",
    "Evaluation",
    "Experiment",
    "Federated",
    "Local",
    "LocalRuntime",
    "Mode",
    "Observation",
    "RayRuntime",
    "Section",
    "Training",
    "kind_of",
]


Corpus = Annotated[CorpusReader, ChosenFrom(CORPORA)]
_Clients = Annotated[Clients, Settings()]
_Split = Annotated[Split, Settings()]


class Experiment(Section):
    """The whole run that tunes a language model."""

    seed: NotNegative = 0
    """Every random stream of the run is derived from it."""
    corpus: Corpus
    clients: _Clients = Clients()
    split: _Split = Split()
    base_model: BaseModelChoice
    adapter: Adapter = Adapter()
    prompt: Annotated[PromptSettings, Settings()] = PromptSettings()
    groups: Annotated[GroupSettings, Settings()] = GroupSettings()
    synthetic: Annotated[SyntheticSettings, Settings()] = SyntheticSettings()
    partition: Annotated[Partition, ChosenFrom(PARTITIONS)] = ByClient()
    """Which client trains on which examples of the groups."""
    objective: Annotated[Objective, ChosenFrom(OBJECTIVES)]
    training: Training = Training()
    mode: Mode
    privacy: Annotated[PrivacyUnit, ChosenFrom(PRIVACY_UNITS)] = NoPrivacy()
    evaluation: Evaluation = Evaluation()
    observation: Observation = Observation()
    output: str = "runs"
    """Folder in which the run folder is made; ``--output`` names the run folder itself."""

    @model_validator(mode="after")
    def _possible(self) -> "Experiment":
        problems = list(_unanswerable(self.evaluation, self.split))
        problems += self._unobservable()
        problems += (line for choice in choices_in(self) for line in choice.problems(self))
        if isinstance(self.mode, Federated):
            problems += runtime_problems(
                self.mode, self.base_model, self.partition, self.observation, self.privacy
            )
            problems += aggregation_problems(self)
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def _unobservable(self) -> Iterator[str]:
        every = self.observation.evaluate_every
        if every and self.split.validation_share == 0:
            yield (
                "observation.evaluate_every needs split.validation_share above 0, because nothing "
                "is held out for it; got 0"
            )
        if every and isinstance(self.mode, Local):
            yield (
                f"observation.evaluate_every must be 0 in mode local, which has no model of all "
                f"clients after a round; got {every}"
            )
        elif every > self.mode.rounds:
            yield (
                f"observation.evaluate_every must be at most mode.rounds, {self.mode.rounds}, or "
                f"no round is ranked; got {every}"
            )


class EmbeddingExperiment(Section):
    """The whole run that trains a knowledge graph embedding."""

    seed: NotNegative = 0
    """Every random stream of the run is derived from it."""
    corpus: Corpus
    clients: _Clients = Clients()
    split: _Split = Split()
    embedding: Annotated[Embedding, ChosenFrom(EMBEDDINGS)]
    training: EmbeddingTraining = EmbeddingTraining()
    mode: Annotated[EmbeddingMode, ChosenFrom(EMBEDDING_MODES)] = PooledGraph()
    fold_in: Annotated[FoldIn, Settings()] = FoldIn()
    evaluation: Evaluation = Evaluation()
    output: str = "runs"
    """Folder in which the run folder is made; ``--output`` names the run folder itself."""

    @model_validator(mode="after")
    def _possible(self) -> "EmbeddingExperiment":
        problems = list(_unanswerable(self.evaluation, self.split))
        problems += (line for choice in choices_in(self) for line in choice.problems(self))
        if problems:
            raise ValueError("\n".join(problems))
        return self


AnyExperiment = Experiment | EmbeddingExperiment

KINDS: tuple[type[Experiment], type[EmbeddingExperiment]] = (Experiment, EmbeddingExperiment)
"""What a whole tree can be."""


def kind_of(tree: Mapping[str, Any]) -> type[Experiment] | type[EmbeddingExperiment]:
    """Return what a tree is to be read as: one with ``embedding`` trains an embedding."""
    return EmbeddingExperiment if "embedding" in tree else Experiment


def _unanswerable(evaluation: Evaluation, split: Split) -> Iterator[str]:
    if evaluation.part == "validation" and split.validation_share == 0:
        yield (
            "evaluation.part validation needs split.validation_share above 0, because nothing is "
            "held out for it; got 0"
        )
