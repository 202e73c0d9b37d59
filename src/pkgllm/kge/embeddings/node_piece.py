"""InductiveNodePiece: an entity is a bag of its relations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from pkgllm.bounds import Positive
from pkgllm.kge.embedding import SingleStage
from pkgllm.kge.settings import Schedule

if TYPE_CHECKING:
    from pkgllm.kge.integer_triples import IntegerTriples
    from pkgllm.kge.pykeen_door import Model


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePiece(SingleStage):
    """InductiveNodePiece (Galkin et al. 2021, arXiv:2106.12144), decoded by DistMult.

    An entity is a bag of the relations of its triples, so that an unseen one needs no training; in
    a graph where all persons have the same few relations, many persons get the same vector.
    """

    name: Literal["node_piece"] = "node_piece"
    dim: Positive = 64
    """Numbers of a token and of an entity."""
    tokens: Positive = 8
    """Relations of an entity that are read, drawn from all that it has."""
    schedule: Schedule = Schedule(epochs=50, batch_size=1024, num_negatives=32, learning_rate=1e-3)

    inverse: ClassVar[bool] = True
    has_own_vectors: ClassVar[bool] = False
    citation: ClassVar[str] = "Galkin et al. 2021, arXiv:2106.12144"

    def untrained(self, triples: IntegerTriples, seed: int) -> Model:
        """Return the model before training."""
        from pykeen.losses import SoftplusLoss
        from pykeen.models import InductiveNodePiece

        from pkgllm.kge.pykeen_door import OWN_SEED, no_bars

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
