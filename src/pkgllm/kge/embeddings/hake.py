"""HAKE: hierarchy by modulus, kinds by phase."""

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
class Hake(SingleStage):
    """HAKE (Zhang et al. 2020, arXiv:1911.09419).

    The equation is in :class:`pkgllm.kge.hake_interaction.HakeInteraction`.
    """

    name: Literal["hake"] = "hake"
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
    schedule: Schedule = Schedule(epochs=100, batch_size=1024, num_negatives=64, learning_rate=1e-3)

    citation: ClassVar[str] = "Zhang et al. 2020, arXiv:1911.09419"

    def untrained(self, triples: IntegerTriples, seed: int) -> Model:
        """Return the model before training."""
        from pykeen.losses import NSSALoss

        from pkgllm.kge.hake_interaction import make_hake

        return make_hake(
            triples.factory(),
            dim=self.dim,
            margin=self.margin,
            phase_weight=self.phase_weight,
            modulus_weight=self.modulus_weight,
            loss=NSSALoss(margin=0.0, adversarial_temperature=self.temperature),
        )
