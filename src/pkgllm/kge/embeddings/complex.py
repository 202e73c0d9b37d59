"""ComplEx: a trilinear product of complex numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from pkgllm.bounds import Positive, PositiveFloat
from pkgllm.kge.embedding import SingleStage
from pkgllm.kge.settings import Schedule

if TYPE_CHECKING:
    from torch import Tensor

    from pkgllm.kge.integer_triples import IntegerTriples
    from pkgllm.kge.pykeen_door import Model


@dataclass(frozen=True, slots=True, kw_only=True)
class Complex(SingleStage):
    """ComplEx (Trouillon et al. 2016, arXiv:1606.06357).

    With its logistic loss, and without a regulariser beside weight decay.
    """

    name: Literal["complex"] = "complex"
    dim: Positive = 100
    """Complex numbers of an entity."""
    scale: PositiveFloat = 0.1
    """Standard deviation of the first numbers."""
    schedule: Schedule = Schedule(
        epochs=100, batch_size=1024, num_negatives=32, learning_rate=1e-3, weight_decay=1e-6
    )

    citation: ClassVar[str] = "Trouillon et al. 2016, arXiv:1606.06357"

    def untrained(self, triples: IntegerTriples, seed: int) -> Model:
        """Return the model before training."""
        from pykeen.losses import SoftplusLoss
        from pykeen.models import ComplEx
        from torch.nn import init

        from pkgllm.kge.pykeen_door import OWN_SEED

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
