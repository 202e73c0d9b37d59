"""Knowledge graph embeddings: which one, how it is trained, and how a person is fit to it.

The defaults are those of :mod:`pkgllm.baselines`, which works without a configuration; a test holds
the two equal. ``docs/baselines.md`` has the equations.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from pkgllm.config.section import NotNegative, NotNegativeFloat, Positive, PositiveFloat, Section

Dropout = Annotated[float, Field(ge=0, lt=1)]


class EmbeddingSchedule(Section):
    """How a stage of training takes its steps, by Adam; absent keys keep the model's default."""

    epochs: Positive
    """Passes over the triples."""
    batch_size: Positive | None
    """Triples of a step; null takes all of them in each."""
    num_negatives: Positive
    """Corrupted triples of each triple, drawn uniformly; none of them is a training triple."""
    learning_rate: PositiveFloat
    """Step size of the first epoch."""
    weight_decay: NotNegativeFloat = 0.0
    """L2 penalty of Adam, on every trained number."""
    decay_every: Positive | None = None
    """Epochs after which the step size is multiplied with ``decay_factor``, again and again; never
    when absent."""
    decay_factor: PositiveFloat = 1.0
    """What the step size is multiplied with."""


class _EmbeddingSection(Section):
    """Takes a schedule of which some keys are given; the others keep this model's defaults."""

    @property
    def stages(self) -> Mapping[str, EmbeddingSchedule]:
        """The schedule of each stage by its name, in order."""
        schedules = {name: value for name, value in self if isinstance(value, EmbeddingSchedule)}
        if "schedule" in schedules:
            # Of a model that one stage makes, which bears its name.
            return {str(getattr(self, "name", "")): schedules["schedule"]}
        return {name.removesuffix("_schedule"): value for name, value in schedules.items()}

    @model_validator(mode="before")
    @classmethod
    def _complete_schedules(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        completed = dict(given)
        for name, field in cls.model_fields.items():
            if isinstance(field.default, EmbeddingSchedule) and isinstance(given.get(name), dict):
                completed[name] = {**field.default.model_dump(), **given[name]}
        return completed


class Hake(_EmbeddingSection):
    """HAKE (Zhang et al. 2020, arXiv:1911.09419)."""

    name: Literal["hake"]
    dim: Positive = 100
    """Numbers in the phase and in the modulus of an entity."""
    margin: PositiveFloat = 9.0
    """The constant in the score."""
    phase_weight: PositiveFloat = 1.0
    """Where the weight of the phases starts."""
    modulus_weight: PositiveFloat = 3.5
    """Where the weight of the moduli starts."""
    temperature: NotNegativeFloat = 1.0
    """Of the self-adversarial weights of negatives: they are softmax of it times the scores."""
    schedule: EmbeddingSchedule = EmbeddingSchedule(
        epochs=100, batch_size=1024, num_negatives=64, learning_rate=1e-3
    )


class Rotate(_EmbeddingSection):
    """RotatE (Sun et al. 2019, arXiv:1902.10197)."""

    name: Literal["rotate"]
    dim: Positive = 100
    """Complex numbers of an entity."""
    margin: PositiveFloat = 9.0
    """Of the loss."""
    temperature: NotNegativeFloat = 1.0
    """As for ``hake``."""
    schedule: EmbeddingSchedule = EmbeddingSchedule(
        epochs=100, batch_size=1024, num_negatives=64, learning_rate=1e-3
    )


class Complex(_EmbeddingSection):
    """ComplEx (Trouillon et al. 2016, arXiv:1606.06357)."""

    name: Literal["complex"]
    dim: Positive = 100
    """Complex numbers of an entity."""
    scale: PositiveFloat = 0.1
    """Standard deviation of the first numbers."""
    schedule: EmbeddingSchedule = EmbeddingSchedule(
        epochs=100, batch_size=1024, num_negatives=32, learning_rate=1e-3, weight_decay=1e-6
    )


class Tucker(_EmbeddingSection):
    """TuckER (Balazevic et al. 2019, arXiv:1901.09590), on sampled negatives."""

    name: Literal["tucker"]
    dim: Positive = 64
    """Numbers of an entity."""
    relation_dim: Positive = 16
    """Numbers of a relation."""
    input_dropout: Dropout = 0.2
    """Of the head's vector."""
    relation_dropout: Dropout = 0.2
    """Of the core tensor once a relation has contracted it."""
    hidden_dropout: Dropout = 0.3
    """Of the product of both."""
    schedule: EmbeddingSchedule = EmbeddingSchedule(
        epochs=100, batch_size=1024, num_negatives=32, learning_rate=1e-3
    )


class CompGcn(_EmbeddingSection):
    """CompGCN (Vashishth et al. 2020, arXiv:1911.03082), decoded by DistMult."""

    name: Literal["comp_gcn"]
    dim: Positive = 64
    """Numbers of an entity and of a relation."""
    layers: Positive = 1
    """Convolutions."""
    dropout: Dropout = 0.1
    """Of what a layer gives."""
    schedule: EmbeddingSchedule = EmbeddingSchedule(
        epochs=100, batch_size=16_384, num_negatives=16, learning_rate=5e-3
    )


class NodePiece(_EmbeddingSection):
    """InductiveNodePiece (Galkin et al. 2021, arXiv:2106.12144), decoded by DistMult."""

    name: Literal["node_piece"]
    dim: Positive = 64
    """Numbers of a token and of an entity."""
    tokens: Positive = 8
    """Relations of an entity that are read, drawn from all it stands in."""
    schedule: EmbeddingSchedule = EmbeddingSchedule(
        epochs=50, batch_size=1024, num_negatives=32, learning_rate=1e-3
    )


class Kbgat(_EmbeddingSection):
    """KBGAT (Nathani et al. 2019, arXiv:1906.01195): TransE, then attention, then ConvKB."""

    name: Literal["kbgat"]
    transe_dim: Positive = 100
    """Numbers of the vectors that attention starts from."""
    transe_margin: PositiveFloat = 1.0
    """Of the loss of TransE."""
    transe_schedule: EmbeddingSchedule = EmbeddingSchedule(
        epochs=100, batch_size=1024, num_negatives=8, learning_rate=1e-3
    )
    """Of the stage ``transe``."""
    dim: Positive = 100
    """Numbers that a head gives; vectors have ``heads * dim``."""
    heads: Positive = 2
    """Of the first layer of attention."""
    output_heads: Positive = 1
    """Of the second layer."""
    slope: NotNegativeFloat = 0.2
    """Of LeakyReLU below 0."""
    dropout: Dropout = 0.3
    """Of attention and of what the first layer gives."""
    inverse_edges: bool = True
    """Whether a tail also hears its head. Else no item hears of the persons who like it."""
    two_hop_limit: NotNegative = 0
    """Auxiliary edges of one receiver at most; 0 makes none."""
    attention_margin: PositiveFloat = 1.0
    """Of the loss of attention."""
    attention_schedule: EmbeddingSchedule = EmbeddingSchedule(
        epochs=300,
        batch_size=None,
        num_negatives=2,
        learning_rate=1e-3,
        weight_decay=1e-5,
        decay_every=500,
        decay_factor=0.5,
    )
    """Of the stage ``attention``."""
    filters: Positive = 50
    """Of ConvKB."""
    decoder_dropout: Dropout = 0.3
    """Of ConvKB."""
    decoder_schedule: EmbeddingSchedule = EmbeddingSchedule(
        epochs=20, batch_size=128, num_negatives=40, learning_rate=1e-3, weight_decay=1e-5
    )
    """Of the stage ``decoder``."""


Embedding = Annotated[
    Hake | Kbgat | Complex | Rotate | Tucker | CompGcn | NodePiece, Field(discriminator="name")
]


class CentralizedEmbeddings(Section):
    """One graph of all training clients' facts, in one place."""

    name: Literal["centralized"]


class FederatedEmbeddings(Section):
    """Every client trains on its own facts and everybody's public ones."""

    name: Literal["federated"]
    exchange: Literal["isolation", "fede", "fedr", "fedavg"]
    """What leaves a client: nothing, entities, relations, or both; never a person's row."""
    cohort_size: Positive
    """Clients in a round, drawn uniformly without replacement."""
    local_epochs: Positive = 1
    """Passes of a client over its facts in a round; a stage has as many rounds as its ``epochs``
    make."""
    public_facts: Positive | None = None
    """Public facts that a client learns from in a round beside its own, drawn anew each time; all
    when absent."""


class EmbeddingTraining(Section):
    """Where an embedding is trained, and how often that is written down."""

    device: str = "auto"
    """``auto``, ``cpu``, ``cuda`` or ``cuda:N``."""
    checkpoint_every: Positive = 1
    """Epochs between checkpoints; there is one at the end of a stage and at a stop as well. A mode
    ``federated`` has one after each round."""


class FoldIn(Section):
    """How a person's vector is fit to the visible facts, with everything else frozen."""

    steps: NotNegative = 50
    """Steps of Adam; 0 leaves everybody where they start."""
    learning_rate: PositiveFloat = 0.01
    """Step size."""
    num_negatives: Positive = 16
    """Items drawn anew at every step for every fact, of those that no visible fact speaks of."""
