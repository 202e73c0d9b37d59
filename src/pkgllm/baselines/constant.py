"""A control that knows nothing: all items tie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pkgllm.baselines import ScorerChoice

if TYPE_CHECKING:
    from pkgllm.baselines.likes import FittedScorer, TrainingLikes


@dataclass(frozen=True, slots=True, kw_only=True)
class Constant(ScorerChoice):
    """Score every item 0: the realistic rank is (N + 1) / 2 among N candidates, and never 1."""

    name: Literal["constant"] = "constant"

    def fit(self, likes: TrainingLikes, *, seed: int = 0) -> FittedScorer:
        """Return a scorer whose scores are all 0."""
        import numpy as np

        zeros = np.zeros(len(likes.catalogue))
        return likes.scorer(self.name, lambda query: zeros)
