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
        r"""Return the model before training.

        Stored phases and moduli of entities, and phases of relations, start uniformly in
        :math:`\pm\rho`; modulus scales start at 1 and mixture biases at 0, as in the authors' code.
        """
        from pykeen.losses import NSSALoss
        from pykeen.models import ERModel
        from torch.nn import init

        from pkgllm.kge.hake_interaction import HakeInteraction
        from pkgllm.kge.pykeen_door import OWN_SEED

        interaction = HakeInteraction(
            dim=self.dim,
            margin=self.margin,
            phase_weight=self.phase_weight,
            modulus_weight=self.modulus_weight,
        )
        uniform = {
            "shape": self.dim,
            "initializer": init.uniform_,
            "initializer_kwargs": {"a": -interaction.range, "b": interaction.range},
        }
        return ERModel(
            triples_factory=triples.factory(),
            interaction=interaction,
            entity_representations_kwargs=[uniform, uniform],
            relation_representations_kwargs=[
                uniform,
                {"shape": self.dim, "initializer": init.ones_},
                {"shape": self.dim, "initializer": init.zeros_},
            ],
            # The score holds the margin already.
            loss=NSSALoss(margin=0.0, adversarial_temperature=self.temperature),
            random_seed=OWN_SEED,
        )
