"""KBGAT in its three stages, each a loop of training of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal

from pkgllm.bounds import NotNegative, NotNegativeFloat, Positive, PositiveFloat, Share
from pkgllm.kge.embedding import Embedding, Stage
from pkgllm.kge.settings import Schedule

if TYPE_CHECKING:
    from torch import Tensor

    from pkgllm.kge.integer_triples import IntegerTriples
    from pkgllm.kge.pykeen_door import Model


@dataclass(frozen=True, slots=True, kw_only=True)
class Kbgat(Embedding):
    """KBGAT (Nathani et al. 2019, arXiv:1906.01195): TransE, then attention, then ConvKB.

    :mod:`pkgllm.kge.kbgat_attention` and :mod:`pkgllm.kge.kbgat_encoder` have the equations.
    """

    name: Literal["kbgat"] = "kbgat"
    transe_dim: Positive = 100
    """Numbers of the vectors that attention starts from."""
    transe_margin: PositiveFloat = 1.0
    """Of the loss of TransE."""
    transe_schedule: Schedule = Schedule(
        epochs=100, batch_size=1024, num_negatives=8, learning_rate=1e-3
    )
    """Of the stage ``transe``."""
    dim: Positive = 100
    """Output width of a head; vectors have ``heads * dim``."""
    heads: Positive = 2
    """Of the first layer of attention."""
    output_heads: Positive = 1
    """Of the second layer."""
    slope: NotNegativeFloat = 0.2
    """Of LeakyReLU below 0."""
    dropout: Share = 0.3
    """Of attention and of the first layer's output."""
    inverse_edges: bool = True
    """Whether a tail also receives from its head; else items receive nothing from persons."""
    two_hop_limit: NotNegative = 0
    """Auxiliary edges of one receiver at most; 0 makes none."""
    attention_margin: PositiveFloat = 1.0
    """Of the loss of attention."""
    attention_schedule: Schedule = Schedule(
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
    decoder_dropout: Share = 0.3
    """Of ConvKB."""
    decoder_schedule: Schedule = Schedule(
        epochs=20, batch_size=128, num_negatives=40, learning_rate=1e-3, weight_decay=1e-5
    )
    """Of the stage ``decoder``."""

    alike_over_clients: ClassVar[bool] = False
    citation: ClassVar[str] = "Nathani et al. 2019, arXiv:1906.01195"

    @property
    def schedules(self) -> Mapping[str, Schedule]:
        """The schedule of each stage by its name, in order."""
        return {
            "transe": self.transe_schedule,
            "attention": self.attention_schedule,
            "decoder": self.decoder_schedule,
        }

    def stage(self, name: str, before: Model | None) -> Stage:
        """Return a stage of its training.

        ``transe`` makes the vectors that ``attention`` starts from; ``decoder`` trains ConvKB on
        the vectors of attention, which stay as they are.
        """
        models: dict[str, Callable[[IntegerTriples, int], Model]] = {
            "transe": self._transe,
            "attention": partial(self._attention, before),
            "decoder": partial(self._decoder_of, before),
        }
        return Stage(name=name, model=models[name], schedule=self.schedules[name])

    def untrained(self, triples: IntegerTriples, seed: int) -> Model:
        """Return the last stage's model before training, on vectors that are all zero."""
        import torch

        width = self.heads * self.dim
        entities = torch.zeros(triples.num_entities, width)
        return self._decoder(triples, entities, torch.zeros(triples.num_relations, width))

    def _transe(self, triples: IntegerTriples, seed: int) -> Model:
        from pykeen.losses import MarginRankingLoss
        from pykeen.models import TransE

        from pkgllm.kge.pykeen_door import OWN_SEED

        return TransE(
            triples_factory=triples.factory(),
            embedding_dim=self.transe_dim,
            scoring_fct_norm=1,
            loss=MarginRankingLoss(margin=self.transe_margin, reduction="mean"),
            random_seed=OWN_SEED,
        )

    def _attention(self, transe: Model | None, triples: IntegerTriples, seed: int) -> Model:
        from pykeen.losses import MarginRankingLoss
        from pykeen.models import ERModel

        from pkgllm.kge.kbgat_attention import make_edges
        from pkgllm.kge.kbgat_encoder import AttentionEncoder, EncodedRepresentation
        from pkgllm.kge.pykeen_door import OWN_SEED, single_vectors

        assert transe is not None, "stage transe comes before"
        encoder = AttentionEncoder(
            *single_vectors(transe),
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

    def _decoder_of(self, attention: Model | None, triples: IntegerTriples, seed: int) -> Model:
        from pkgllm.kge.pykeen_door import single_vectors

        assert attention is not None, "stage attention comes before"
        return self._decoder(triples, *single_vectors(attention))

    def _decoder(self, triples: IntegerTriples, entities: Tensor, relations: Tensor) -> Model:
        from pykeen.losses import SoftplusLoss
        from pykeen.models import ERModel

        from pkgllm.kge.convkb import SummedConvKb
        from pkgllm.kge.pykeen_door import OWN_SEED, frozen_vectors

        return ERModel(
            triples_factory=triples.factory(),
            interaction=SummedConvKb(
                hidden_dropout_rate=self.decoder_dropout,
                embedding_dim=entities.shape[1],
                num_filters=self.filters,
            ),
            entity_representations_kwargs=frozen_vectors(entities),
            relation_representations_kwargs=frozen_vectors(relations),
            loss=SoftplusLoss(reduction="mean"),
            random_seed=OWN_SEED,
        )
