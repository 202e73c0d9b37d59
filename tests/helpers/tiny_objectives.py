"""Objectives that no configuration can name."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from pkgllm.objectives.objective import Objective
from pkgllm.objectives.scored_groups import ScoredGroups


@dataclass(frozen=True, slots=True, kw_only=True)
class ByFunction(Objective):
    """Any function of a batch."""

    function: Callable[[ScoredGroups], Tensor]
    name: str = "by function"
    reference: bool = True
    couples_examples = False

    def loss(self, groups: ScoredGroups, kl_baseline: float | None = None) -> Tensor:
        return self.function(groups)

    @property
    def needs_reference(self) -> bool:
        return self.reference


def at_baseline(objective: Objective, kl_baseline: float) -> Objective:
    """An objective with the KL baseline that a server sent once for all rounds."""
    return ByFunction(function=lambda groups: objective.loss(groups, kl_baseline))
