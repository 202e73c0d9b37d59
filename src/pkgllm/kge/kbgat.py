"""KBGAT in its three stages, each a loop of training of its own."""

from dataclasses import dataclass
from typing import Any

import torch
from pykeen.losses import MarginRankingLoss, SoftplusLoss
from pykeen.models import ERModel, TransE
from torch import Tensor

from pkgllm.kge.convkb import SummedConvKb
from pkgllm.kge.integer_triples import IntegerTriples
from pkgllm.kge.kbgat_attention import make_edges
from pkgllm.kge.kbgat_encoder import AttentionEncoder, EncodedRepresentation
from pkgllm.kge.pykeen_door import OWN_SEED, Model
from pkgllm.kge.stages import Schedule, Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Kbgat:
    """KBGAT, Nathani et al. 2019, arXiv:1906.01195: TransE, then attention, then ConvKB.

    :mod:`pkgllm.kge.kbgat_attention` and :mod:`pkgllm.kge.kbgat_encoder` have the
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
            return self._decoder(triples, *vectors_of(attention))

        return Stage(name="decoder", model=model, schedule=self.decoder_schedule)

    def untrained(self, triples: IntegerTriples, seed: int) -> Model:
        """Return the last stage's model before training, on vectors that are all zero."""
        width = self.heads * self.dim
        entities = torch.zeros(triples.num_entities, width)
        return self._decoder(triples, entities, torch.zeros(triples.num_relations, width))

    def _decoder(self, triples: IntegerTriples, entities: Tensor, relations: Tensor) -> Model:
        return ERModel(
            triples_factory=triples.factory(),
            interaction=SummedConvKb(
                hidden_dropout_rate=self.decoder_dropout,
                embedding_dim=entities.shape[1],
                num_filters=self.filters,
            ),
            entity_representations_kwargs=_frozen(entities),
            relation_representations_kwargs=_frozen(relations),
            loss=SoftplusLoss(reduction="mean"),
            random_seed=OWN_SEED,
        )


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
