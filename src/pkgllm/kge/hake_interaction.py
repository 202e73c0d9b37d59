"""HAKE: entities on polar rings, hierarchy by modulus, kinds by phase, as a PyKEEN interaction."""

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from pykeen.nn.modules import Interaction
from torch import Tensor, nn

_EPSILON = 2.0
"""What the authors' code adds to the margin where it bounds the first vectors."""

Entity = tuple[Tensor, Tensor]
"""Phase and modulus, each ``(*batch, dim)``; phases in units of the range, see below."""
Relation = tuple[Tensor, Tensor, Tensor]
"""Phase, modulus scale and mixture bias, each ``(*batch, dim)``."""


class HakeInteraction(Interaction[Entity, Relation, Entity]):
    r"""Score a triple by how far rotation and scaling of the head miss the tail.

    Zhang et al. 2020, "Learning hierarchy-aware knowledge graph embeddings for link prediction"
    (arXiv:1911.09419), section "Hierarchy-Aware Knowledge Graph Embedding", in the form with a
    mixture bias. With phases :math:`p`, moduli :math:`m` and a relation's bias :math:`b`,

    .. math::
        s(h, r, t) = \gamma
            - w_p \sum_i \left|\sin\frac{p_{h,i} + p_{r,i} - p_{t,i}}{2}\right|
            - w_m \left\|m_h \circ (|m_r| + b') - m_t \circ (1 - b')\right\|_2

    where :math:`b'` is :math:`b` clamped to :math:`[-|m_r|, 1]`, and :math:`w_p` and :math:`w_m`
    are learned. A phase is stored as a share of :math:`\rho = (\gamma + 2) / d` and is
    :math:`\pi / \rho` times what is stored, so that phases and moduli take steps of one size; the
    phase weight starts at :math:`\rho` times ``phase_weight``. Both are the authors' choices.

    Args:
        dim: :math:`d`, numbers in each of an entity's two parts.
        margin: :math:`\gamma`.
        phase_weight: Where :math:`w_p / \rho` starts.
        modulus_weight: Where :math:`w_m` starts.
    """

    entity_shape: Sequence[str] = ("d", "d")
    relation_shape: Sequence[str] = ("d", "d", "d")
    is_complex: ClassVar[bool] = False

    def __init__(
        self, *, dim: int, margin: float, phase_weight: float, modulus_weight: float
    ) -> None:
        super().__init__()
        self.margin = margin
        self.range = (margin + _EPSILON) / dim
        """:math:`\rho`; what is stored starts uniformly between minus it and it."""
        self._start = (phase_weight * self.range, modulus_weight)
        self.phase_weight = nn.Parameter(torch.tensor(self._start[0]))
        self.modulus_weight = nn.Parameter(torch.tensor(self._start[1]))

    def reset_parameters(self) -> None:
        """Set both weights to where they start."""
        nn.init.constant_(self.phase_weight, self._start[0])
        nn.init.constant_(self.modulus_weight, self._start[1])

    def forward(self, h: Entity, r: Relation, t: Entity) -> Tensor:
        """Return the scores of broadcast parts, shape ``batch``."""
        head_phase, head_modulus = h
        phase, modulus, bias = r
        tail_phase, tail_modulus = t
        scale = modulus.abs()
        bias = torch.maximum(bias.clamp(max=1.0), -scale)
        half_angle = (head_phase + phase - tail_phase) * (math.pi / (2 * self.range))
        missed = head_modulus * (scale + bias) - tail_modulus * (1.0 - bias)
        turned: Tensor = half_angle.sin().abs().sum(dim=-1)
        distance: Tensor = torch.linalg.vector_norm(missed, dim=-1)
        return self.margin - self.phase_weight * turned - self.modulus_weight * distance

    def mean_entity(self, parts: Sequence[Tensor]) -> Entity:
        """Return the mean of entities: of moduli as numbers, of phases as directions.

        Args:
            parts: Phases and moduli, each ``(entities, dim)``.

        Returns:
            Phase and modulus, each ``(dim,)``.
        """
        phase, modulus = parts
        angle = phase * (math.pi / self.range)
        mean_angle = torch.atan2(angle.sin().mean(dim=0), angle.cos().mean(dim=0))
        return mean_angle * (self.range / math.pi), modulus.mean(dim=0)
