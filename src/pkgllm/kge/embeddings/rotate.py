"""RotatE: relations turn the complex numbers of an entity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from pkgllm.bounds import NotNegativeFloat, Positive, PositiveFloat
from pkgllm.kge.embedding import SingleStage
from pkgllm.kge.settings import Schedule

if TYPE_CHECKING:
    from pkgllm.kge.integer_triples import IntegerTriples
    from pkgllm.kge.pykeen_door import Model


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotate(SingleStage):
    """RotatE (Sun et al. 2019, arXiv:1902.10197)."""

    name: Literal["rotate"] = "rotate"
    dim: Positive = 100
    """Complex numbers of an entity."""
    margin: PositiveFloat = 9.0
    """Of the loss."""
    temperature: NotNegativeFloat = 1.0
    """As for ``hake``."""
    schedule: Schedule = Schedule(epochs=100, batch_size=1024, num_negatives=64, learning_rate=1e-3)

    citation: ClassVar[str] = "Sun et al. 2019, arXiv:1902.10197"

    def untrained(self, triples: IntegerTriples, seed: int) -> Model:
        """Return the model before training; entities start as in the authors' code."""
        from pykeen.losses import NSSALoss
        from pykeen.models import RotatE
        from torch.nn import init

        from pkgllm.kge.pykeen_door import OWN_SEED

        bound = (self.margin + 2.0) / self.dim
        return RotatE(
            triples_factory=triples.factory(),
            embedding_dim=self.dim,
            entity_initializer=lambda x: init.uniform_(x, -bound, bound),
            loss=NSSALoss(margin=self.margin, adversarial_temperature=self.temperature),
            random_seed=OWN_SEED,
        )
