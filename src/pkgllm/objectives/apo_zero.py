"""APO-zero for unpaired feedback: KTO without a KL baseline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pkgllm.bounds import NotNegativeFloat, PositiveFloat
from pkgllm.objectives.kto import kto_loss
from pkgllm.objectives.objective import Objective, TrlCounterpart

if TYPE_CHECKING:
    from torch import Tensor

    from pkgllm.objectives.scored_groups import ScoredGroups


@dataclass(frozen=True, slots=True, kw_only=True)
class ApoZero(Objective):
    """KTO with the KL baseline fixed at 0 (APO-zero for unpaired feedback)."""

    name: Literal["apo_zero"] = "apo_zero"
    beta: PositiveFloat = 0.1
    """How strongly the policy is held to the reference."""
    desirable_weight: PositiveFloat = 1.0
    """Weight of a desirable completion; not to be set from private counts."""
    undesirable_weight: PositiveFloat = 1.0
    """Weight of an undesirable completion."""
    nll_weight: NotNegativeFloat = 0.0
    """Weight of the likelihood of the desirable completions."""

    citation = (
        "D'Oosterlinck, Xu, Develder, Demeester, Singh, Potts, Kiela and Mehri 2024, Anchored "
        "Preference Optimization and Contrastive Revisions, arXiv:2408.06266"
    )
    couples_examples = False

    def loss(self, groups: ScoredGroups, kl_baseline: float | None = None) -> Tensor:
        """See :func:`~pkgllm.objectives.kto.kto_loss`, with the baseline 0."""
        losses = kto_loss(
            groups.log_ratio,
            groups.desirable,
            kl_baseline=0.0,
            beta=self.beta,
            desirable_weight=self.desirable_weight,
            undesirable_weight=self.undesirable_weight,
        )
        return groups.with_likelihood(groups.mean(losses), self.nll_weight)

    @property
    def trl(self) -> TrlCounterpart | None:
        """KTO's trainer without a baseline, where there is no likelihood term."""
        if self.nll_weight:
            return None
        return TrlCounterpart(
            trainer="KTOTrainer",
            examples="completions",
            settings={
                "loss_type": "apo_zero_unpaired",
                "beta": self.beta,
                "desirable_weight": self.desirable_weight,
                "undesirable_weight": self.undesirable_weight,
            },
        )
