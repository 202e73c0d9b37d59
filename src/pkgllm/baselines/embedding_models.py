"""Knowledge graph embeddings by name: their hyper-parameters, their models, their losses.

Each choice is a frozen dataclass that says everything its training depends on besides the triples
and the seed. All are trained by :mod:`pkgllm.baselines.embedding_training`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pykeen.losses import (
    BCEWithLogitsLoss,
    MarginRankingLoss,
    NSSALoss,
    SoftplusLoss,
)
from pykeen.models import CompGCN, ComplEx, ERModel, InductiveNodePiece, RotatE, TransE, TuckER
from pykeen.nn.modules import ConvKBInteraction
from torch import Tensor
from torch.nn import init

from pkgllm.baselines.hake import make_hake
from pkgllm.baselines.integer_triples import IntegerTriples
from pkgllm.baselines.kbgat_attention import make_edges
from pkgllm.baselines.kbgat_encoder import AttentionEncoder, EncodedRepresentation
from pkgllm.baselines.pykeen_door import OWN_SEED, Model, no_bars


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """How a stage of training takes its steps, by Adam.

    Raises:
        ValueError: If a number is out of range.
    """

    epochs: int
    """Passes over the triples."""
    batch_size: int | None
    """Triples of a step; None takes all of them in each."""
    num_negatives: int
    """Corrupted triples of each triple: half with another head, half with another tail, drawn
    uniformly from all entities; those that are training triples are left out."""
    learning_rate: float
    weight_decay: float = 0.0
    """L2 penalty of Adam, on every trained number."""
    decay_every: int | None = None
    """Epochs after which the learning rate is multiplied with ``decay_factor``, again and again."""
    decay_factor: float = 1.0

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("num_negatives", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        for optional in ("batch_size", "decay_every"):
            value = getattr(self, optional)
            if value is not None and value < 1:
                raise ValueError(f"{optional} must be at least 1 or None, got {value}")
        if not self.learning_rate > 0 or not self.weight_decay >= 0 or not self.decay_factor > 0:
            raise ValueError(
                "learning_rate and decay_factor must be above 0 and weight_decay from 0, got "
                f"{self.learning_rate}, {self.decay_factor} and {self.weight_decay}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One loop of training: a model that is not trained yet, and how it will be."""

    name: str
    model: Callable[[IntegerTriples, int], Model]
    """From the triples and a seed for what is drawn besides first vectors."""
    schedule: Schedule
    inverse: bool = False
    """Whether the model learns from inverse triples as well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hake:
    """HAKE, Zhang et al. 2020, arXiv:1911.09419: :class:`pkgllm.baselines.hake.HakeInteraction`."""

    dim: int = 100
    """Numbers in the phase and in the modulus of an entity."""
    margin: float = 9.0
    """The constant in the score."""
    phase_weight: float = 1.0
    modulus_weight: float = 3.5
    temperature: float = 1.0
    """Of the self-adversarial weights of negatives: they are softmax of it times the scores."""
    schedule: Schedule = Schedule(epochs=100, batch_size=1024, num_negatives=64, learning_rate=1e-3)

    name = "hake"

    def stage(self) -> Stage:
        """Return the one stage of its training."""
        return Stage(name=self.name, model=self._model, schedule=self.schedule)

    def _model(self, triples: IntegerTriples, seed: int) -> Model:
        return make_hake(
            triples.factory(),
            dim=self.dim,
            margin=self.margin,
            phase_weight=self.phase_weight,
            modulus_weight=self.modulus_weight,
            loss=NSSALoss(margin=0.0, adversarial_temperature=self.temperature),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotate:
    """RotatE, Sun et al. 2019, arXiv:1902.10197."""

    dim: int = 100
    """Complex numbers of an entity."""
    margin: float = 9.0
    temperature: float = 1.0
    """As for HAKE."""
    schedule: Schedule = Schedule(epochs=100, batch_size=1024, num_negatives=64, learning_rate=1e-3)

    name = "rotate"

    def stage(self) -> Stage:
        """Return the one stage of its training."""
        return Stage(name=self.name, model=self._model, schedule=self.schedule)

    def _model(self, triples: IntegerTriples, seed: int) -> Model:
        bound = (self.margin + 2.0) / self.dim  # as the authors' code starts entities
        return RotatE(
            triples_factory=triples.factory(),
            embedding_dim=self.dim,
            entity_initializer=lambda x: init.uniform_(x, -bound, bound),
            loss=NSSALoss(margin=self.margin, adversarial_temperature=self.temperature),
            random_seed=OWN_SEED,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Complex:
    """ComplEx, Trouillon et al. 2016, arXiv:1606.06357, with its logistic loss."""

    dim: int = 100
    """Complex numbers of an entity."""
    scale: float = 0.1
    """Standard deviation of the first numbers."""
    schedule: Schedule = Schedule(
        epochs=100, batch_size=1024, num_negatives=32, learning_rate=1e-3, weight_decay=1e-6
    )

    name = "complex"

    def stage(self) -> Stage:
        """Return the one stage of its training."""
        return Stage(name=self.name, model=self._model, schedule=self.schedule)

    def _model(self, triples: IntegerTriples, seed: int) -> Model:
        def normal(x: Tensor) -> Tensor:
            return init.normal_(x, std=self.scale)

        return ComplEx(
            triples_factory=triples.factory(),
            embedding_dim=self.dim,
            entity_initializer=normal,
            relation_initializer=normal,
            regularizer=None,
            loss=SoftplusLoss(reduction="mean"),
            random_seed=OWN_SEED,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Tucker:
    """TuckER, Balazevic et al. 2019, arXiv:1901.09590, on sampled negatives."""

    dim: int = 64
    relation_dim: int = 16
    input_dropout: float = 0.2
    """Of the head's vector."""
    relation_dropout: float = 0.2
    """Of the core tensor once a relation has contracted it."""
    hidden_dropout: float = 0.3
    """Of the product of both."""
    schedule: Schedule = Schedule(epochs=100, batch_size=1024, num_negatives=32, learning_rate=1e-3)

    name = "tucker"

    def stage(self) -> Stage:
        """Return the one stage of its training."""
        return Stage(name=self.name, model=self._model, schedule=self.schedule)

    def _model(self, triples: IntegerTriples, seed: int) -> Model:
        return TuckER(
            triples_factory=triples.factory(),
            embedding_dim=self.dim,
            relation_dim=self.relation_dim,
            dropout_0=self.input_dropout,
            dropout_1=self.relation_dropout,
            dropout_2=self.hidden_dropout,
            apply_batch_normalization=True,
            loss=BCEWithLogitsLoss(reduction="mean"),
            random_seed=OWN_SEED,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CompGcn:
    """CompGCN, Vashishth et al. 2020, arXiv:1911.03082, with DistMult as its decoder.

    The whole graph is encoded at every step, so a step should take many triples.
    """

    dim: int = 64
    layers: int = 1
    dropout: float = 0.1
    """Of what a layer gives."""
    schedule: Schedule = Schedule(
        epochs=100, batch_size=16_384, num_negatives=16, learning_rate=5e-3
    )

    name = "comp_gcn"

    def stage(self) -> Stage:
        """Return the one stage of its training."""
        return Stage(name=self.name, model=self._model, schedule=self.schedule, inverse=True)

    def _model(self, triples: IntegerTriples, seed: int) -> Model:
        return CompGCN(
            triples_factory=triples.factory(inverse=True),
            embedding_dim=self.dim,
            encoder_kwargs={
                "num_layers": self.layers,
                "layer_kwargs": {"dropout": self.dropout},
            },
            interaction="distmult",
            loss=BCEWithLogitsLoss(reduction="mean"),
            random_seed=OWN_SEED,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePiece:
    """InductiveNodePiece, Galkin et al. 2021, arXiv:2106.12144, with DistMult as its decoder.

    An entity is a bag of the relations it stands in, so that an unseen one needs no training; in a
    graph where all persons stand in the same few relations it tells few of them apart.
    """

    dim: int = 64
    tokens: int = 8
    """Relations of an entity that are read, drawn from all it stands in."""
    schedule: Schedule = Schedule(epochs=50, batch_size=1024, num_negatives=32, learning_rate=1e-3)

    name = "node_piece"

    def stage(self) -> Stage:
        """Return the one stage of its training."""
        return Stage(name=self.name, model=self._model, schedule=self.schedule, inverse=True)

    def _model(self, triples: IntegerTriples, seed: int) -> Model:
        factory = triples.factory(inverse=True)
        with no_bars():
            return InductiveNodePiece(
                triples_factory=factory,
                inference_factory=factory,
                num_tokens=self.tokens,
                embedding_dim=self.dim,
                aggregation="mlp",
                interaction="distmult",
                loss=SoftplusLoss(reduction="mean"),
                random_seed=OWN_SEED,
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Kbgat:
    """KBGAT, Nathani et al. 2019, arXiv:1906.01195: TransE, then attention, then ConvKB.

    :mod:`pkgllm.baselines.kbgat_attention` and :mod:`pkgllm.baselines.kbgat_encoder` have the
    equations.
    """

    transe_dim: int = 100
    transe_margin: float = 1.0
    transe_schedule: Schedule = Schedule(
        epochs=100, batch_size=1024, num_negatives=8, learning_rate=1e-3
    )
    """Of the vectors that attention starts from, by the L1 norm."""
    dim: int = 100
    """Numbers that a head gives; vectors have ``heads * dim``."""
    heads: int = 2
    output_heads: int = 1
    slope: float = 0.2
    """Of LeakyReLU below 0."""
    dropout: float = 0.3
    inverse_edges: bool = True
    """Whether a tail also hears its head. Else no item hears of the persons who like it."""
    two_hop_limit: int = 0
    """Auxiliary edges of one receiver at most; 0 makes none."""
    attention_margin: float = 1.0
    attention_schedule: Schedule = Schedule(
        epochs=300,
        batch_size=None,
        num_negatives=2,
        learning_rate=1e-3,
        weight_decay=1e-5,
        decay_every=500,
        decay_factor=0.5,
    )
    filters: int = 50
    """Of ConvKB."""
    decoder_dropout: float = 0.3
    decoder_schedule: Schedule = Schedule(
        epochs=20, batch_size=128, num_negatives=40, learning_rate=1e-3, weight_decay=1e-5
    )

    name = "kbgat"

    def transe_stage(self) -> Stage:
        """Return the stage that makes the vectors to start from."""

        def model(triples: IntegerTriples, seed: int) -> Model:
            return TransE(
                triples_factory=triples.factory(),
                embedding_dim=self.transe_dim,
                scoring_fct_norm=1,
                loss=MarginRankingLoss(margin=self.transe_margin, reduction="mean"),
                random_seed=OWN_SEED,
            )

        return Stage(name="transe", model=model, schedule=self.transe_schedule)

    def attention_stage(self, transe: Model) -> Stage:
        """Return the stage that trains attention, from TransE's vectors."""

        def model(triples: IntegerTriples, seed: int) -> Model:
            encoder = AttentionEncoder(
                *vectors_of(transe),
                make_edges(
                    triples.triples,
                    triples.num_relations,
                    inverse=self.inverse_edges,
                    two_hop_limit=self.two_hop_limit,
                    seed=seed,
                ),
                dim=self.dim,
                heads=self.heads,
                output_heads=self.output_heads,
                slope=self.slope,
                dropout=self.dropout,
            )
            return ERModel(
                triples_factory=triples.factory(),
                interaction="transe",
                interaction_kwargs={"p": 1},
                entity_representations=EncodedRepresentation(encoder, "entities"),
                relation_representations=EncodedRepresentation(encoder, "relations"),
                loss=MarginRankingLoss(margin=self.attention_margin, reduction="mean"),
                random_seed=OWN_SEED,
            )

        return Stage(name="attention", model=model, schedule=self.attention_schedule)

    def decoder_stage(self, attention: Model) -> Stage:
        """Return the stage that trains ConvKB, on attention's vectors, which stay as they are."""

        def model(triples: IntegerTriples, seed: int) -> Model:
            entities, relations = vectors_of(attention)
            return ERModel(
                triples_factory=triples.factory(),
                interaction=ConvKBInteraction(
                    hidden_dropout_rate=self.decoder_dropout,
                    embedding_dim=entities.shape[1],
                    num_filters=self.filters,
                ),
                entity_representations_kwargs=_frozen(entities),
                relation_representations_kwargs=_frozen(relations),
                loss=SoftplusLoss(reduction="mean"),
                random_seed=OWN_SEED,
            )

        return Stage(name="decoder", model=model, schedule=self.decoder_schedule)


EmbeddingChoice = Hake | Rotate | Complex | Tucker | CompGcn | NodePiece | Kbgat


def vectors_of(model: Model) -> tuple[Tensor, Tensor]:
    """Return the entities and the relations of a trained model with one vector for each."""
    (entities,), (relations,) = model.entity_representations, model.relation_representations
    return entities().detach().cpu(), relations().detach().cpu()


def _frozen(vectors: Tensor) -> dict[str, Any]:
    return {
        "shape": vectors.shape[1],
        # A copy each time: PyKEEN takes the tensor itself for its table, which it fills with noise
        # when training begins, before it asks again.
        "initializer": lambda _: vectors.clone(),
        "trainable": False,
    }
