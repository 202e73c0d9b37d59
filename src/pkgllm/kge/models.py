"""Knowledge graph embeddings by name: their hyper-parameters, their models, their losses.

Each choice is a frozen dataclass that says everything its training depends on besides the triples
and the seed. All are trained by :mod:`pkgllm.kge.training`. This module is where
others take them from.
"""

from dataclasses import dataclass

from pykeen.losses import BCEWithLogitsLoss, NSSALoss, SoftplusLoss
from pykeen.models import CompGCN, ComplEx, InductiveNodePiece, RotatE, TuckER
from torch import Tensor
from torch.nn import init

from pkgllm.kge.hake import make_hake
from pkgllm.kge.integer_triples import IntegerTriples
from pkgllm.kge.kbgat import Kbgat
from pkgllm.kge.pykeen_door import OWN_SEED, Model, no_bars
from pkgllm.kge.stages import Schedule, SingleStage

__all__ = [
    "CompGcn",
    "Complex",
    "EmbeddingChoice",
    "Hake",
    "Kbgat",
    "NodePiece",
    "Rotate",
    "Schedule",
    "Tucker",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hake(SingleStage):
    """HAKE, Zhang et al. 2020, arXiv:1911.09419: :class:`pkgllm.kge.hake.HakeInteraction`."""

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

    def untrained(self, triples: IntegerTriples, seed: int) -> Model:
        """Return the model before training."""
        return make_hake(
            triples.factory(),
            dim=self.dim,
            margin=self.margin,
            phase_weight=self.phase_weight,
            modulus_weight=self.modulus_weight,
            loss=NSSALoss(margin=0.0, adversarial_temperature=self.temperature),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotate(SingleStage):
    """RotatE, Sun et al. 2019, arXiv:1902.10197."""

    dim: int = 100
    """Complex numbers of an entity."""
    margin: float = 9.0
    temperature: float = 1.0
    """As for HAKE."""
    schedule: Schedule = Schedule(epochs=100, batch_size=1024, num_negatives=64, learning_rate=1e-3)

    name = "rotate"

    def untrained(self, triples: IntegerTriples, seed: int) -> Model:
        """Return the model before training."""
        bound = (self.margin + 2.0) / self.dim  # as the authors' code starts entities
        return RotatE(
            triples_factory=triples.factory(),
            embedding_dim=self.dim,
            entity_initializer=lambda x: init.uniform_(x, -bound, bound),
            loss=NSSALoss(margin=self.margin, adversarial_temperature=self.temperature),
            random_seed=OWN_SEED,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Complex(SingleStage):
    """ComplEx, Trouillon et al. 2016, arXiv:1606.06357, with its logistic loss."""

    dim: int = 100
    """Complex numbers of an entity."""
    scale: float = 0.1
    """Standard deviation of the first numbers."""
    schedule: Schedule = Schedule(
        epochs=100, batch_size=1024, num_negatives=32, learning_rate=1e-3, weight_decay=1e-6
    )

    name = "complex"

    def untrained(self, triples: IntegerTriples, seed: int) -> Model:
        """Return the model before training."""

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
class Tucker(SingleStage):
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

    def untrained(self, triples: IntegerTriples, seed: int) -> Model:
        """Return the model before training."""
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
class CompGcn(SingleStage):
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
    inverse = True

    def untrained(self, triples: IntegerTriples, seed: int) -> Model:
        """Return the model before training."""
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
class NodePiece(SingleStage):
    """InductiveNodePiece, Galkin et al. 2021, arXiv:2106.12144, with DistMult as its decoder.

    An entity is a bag of the relations it stands in, so that an unseen one needs no training; in a
    graph where all persons stand in the same few relations it tells few of them apart.
    """

    dim: int = 64
    tokens: int = 8
    """Relations of an entity that are read, drawn from all it stands in."""
    schedule: Schedule = Schedule(epochs=50, batch_size=1024, num_negatives=32, learning_rate=1e-3)

    name = "node_piece"
    inverse = True

    def untrained(self, triples: IntegerTriples, seed: int) -> Model:
        """Return the model before training."""
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


EmbeddingChoice = Hake | Rotate | Complex | Tucker | CompGcn | NodePiece | Kbgat
"""What can be trained."""
