"""TuckER: a core tensor shared by all relations."""

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
class Tucker(SingleStage):
    """TuckER (Balazevic et al. 2019, arXiv:1901.09590), on sampled negatives."""

    name: Literal["tucker"] = "tucker"
    dim: Positive = 64
    """Numbers of an entity."""
    relation_dim: Positive = 16
    """Numbers of a relation."""
    input_dropout: Share = 0.2
    """Of the head's vector."""
    relation_dropout: Share = 0.2
    """Of the core tensor once a relation has contracted it."""
    hidden_dropout: Share = 0.3
    """Of the product of both."""
    schedule: Schedule = Schedule(epochs=100, batch_size=1024, num_negatives=32, learning_rate=1e-3)

    citation: ClassVar[str] = "Balazevic et al. 2019, arXiv:1901.09590"

    def untrained(self, triples: IntegerTriples, seed: int) -> Model:
        """Return the model before training."""
        from pykeen.losses import BCEWithLogitsLoss
        from pykeen.models import TuckER

        from pkgllm.kge.pykeen_door import OWN_SEED

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
