"""CompGCN: convolutions over the whole graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from pkgllm.bounds import Positive, Share
from pkgllm.kge.embedding import SingleStage
from pkgllm.kge.settings import Schedule

if TYPE_CHECKING:
    from pkgllm.kge.integer_triples import IntegerTriples
    from pkgllm.kge.pykeen_door import Model


@dataclass(frozen=True, slots=True, kw_only=True)
class CompGcn(SingleStage):
    """CompGCN (Vashishth et al. 2020, arXiv:1911.03082), decoded by DistMult.

    The whole graph is encoded at every step, so a step should take many triples.
    """

    name: Literal["comp_gcn"] = "comp_gcn"
    dim: Positive = 64
    """Numbers of an entity and of a relation."""
    layers: Positive = 1
    """Convolutions."""
    dropout: Share = 0.1
    """Of a layer's output."""
    schedule: Schedule = Schedule(
        epochs=100, batch_size=16_384, num_negatives=16, learning_rate=5e-3
    )

    inverse: ClassVar[bool] = True
    has_own_vectors: ClassVar[bool] = False
    citation: ClassVar[str] = "Vashishth et al. 2020, arXiv:1911.03082"

    def untrained(self, triples: IntegerTriples, seed: int) -> Model:
        """Return the model before training."""
        from pykeen.losses import BCEWithLogitsLoss
        from pykeen.models import CompGCN

        from pkgllm.kge.pykeen_door import OWN_SEED

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
