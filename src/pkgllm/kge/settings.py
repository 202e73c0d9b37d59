"""How embeddings are trained and how persons are fit to them: settings without any model."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from typing import Literal

from pkgllm.bounds import NotNegative, NotNegativeFloat, Positive, PositiveFloat
from pkgllm.registry import Choice, Registry, RunSettings

Exchange = Literal["isolation", "fede", "fedr", "fedavg"]
"""What is exchanged: nothing, entities, relations, or both."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """How a stage of training takes its steps, by Adam; absent keys keep the model's default."""

    epochs: Positive
    """Passes over the triples."""
    batch_size: Positive | None
    """Triples of a step; null takes all of them in each."""
    num_negatives: Positive
    """Corrupted triples of each triple: half with another head, half with another tail, drawn
    uniformly from all entities; none of them is a training triple."""
    learning_rate: PositiveFloat
    """Step size of the first epoch."""
    weight_decay: NotNegativeFloat = 0.0
    """L2 penalty of Adam, on every trained number."""
    decay_every: Positive | None = None
    """Epochs after which the step size is multiplied with ``decay_factor``, again and again; never
    when absent."""
    decay_factor: PositiveFloat = 1.0
    """What the step size is multiplied with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldIn:
    """How a person's vector is fit to the visible facts, with everything else frozen."""

    steps: NotNegative = 50
    """Steps of Adam; 0 leaves everybody where they start."""
    learning_rate: PositiveFloat = 0.01
    """Step size."""
    num_negatives: Positive = 16
    """Items drawn anew at every step for every fact, of those that no visible fact speaks of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingMode(Choice):
    """Where the facts lie that an embedding is trained on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PooledGraph(EmbeddingMode):
    """One graph of all training clients' facts, in one place."""

    name: Literal["centralized"] = "centralized"


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingFederation(EmbeddingMode):
    """Every client trains on its own facts and everybody's public ones.

    A stage has as many rounds as its epochs make, ``local_epochs`` in each, so that a client that
    is drawn every time trains as many epochs as one would on everybody's facts.
    """

    name: Literal["federated"] = "federated"
    exchange: Exchange
    """What leaves a client: nothing, entities, relations, or both; never a person's row."""
    cohort_size: Positive
    """Clients in a round, drawn uniformly without replacement."""
    local_epochs: Positive = 1
    """Passes of a client over its facts in a round; a stage has as many rounds as its ``epochs``
    make."""
    public_facts: Positive | None = None
    """Public facts that a client learns from in a round beside its own, drawn anew each time; all
    when absent. A client's own facts are few, and all public ones would drown them."""

    def num_rounds(self, schedule: Schedule) -> int:
        """Return the rounds of a stage."""
        return ceil(schedule.epochs / self.local_epochs)

    def problems(self, run: RunSettings) -> Iterator[str]:
        """Yield what cannot be trained over clients, or written down more rarely."""
        if not run.embedding.has_own_vectors:
            yield (
                "mode federated needs an embedding with a vector of its own for every entity, "
                f"which {run.embedding.name} has not; choose hake, kbgat, complex, rotate or "
                "tucker"
            )
        if run.training.checkpoint_every != 1:
            yield (
                "training.checkpoint_every must be 1 with mode federated, where each round ends "
                f"with a checkpoint; got {run.training.checkpoint_every}"
            )


EMBEDDING_MODES: Registry[EmbeddingMode] = Registry(
    "mode",
    "pkgllm.embedding_modes",
    {
        "centralized": "pkgllm.kge.settings:PooledGraph",
        "federated": "pkgllm.kge.settings:EmbeddingFederation",
    },
)
