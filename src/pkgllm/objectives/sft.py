"""Supervised fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pkgllm.objectives.objective import Objective, TrlCounterpart

if TYPE_CHECKING:
    from torch import Tensor

    from pkgllm.objectives.scored_groups import ScoredGroups


@dataclass(frozen=True, slots=True, kw_only=True)
class Sft(Objective):
    """Supervised fine-tuning on the desirable completions."""

    name: Literal["sft"] = "sft"

    needs_reference = False
    needs_desirable = True
    couples_examples = False

    def loss(self, groups: ScoredGroups, kl_baseline: float | None = None) -> Tensor:
        r"""Return the mean of :math:`-\log \pi(y|x)` over the desirable completions, nats."""
        return groups.negative_log_likelihood()

    @property
    def trl(self) -> TrlCounterpart:
        """Return SFT."""
        return TrlCounterpart(trainer="SFTTrainer", examples="desirable")
