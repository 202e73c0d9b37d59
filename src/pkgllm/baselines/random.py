"""A control that guesses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pkgllm.baselines import ScorerChoice

if TYPE_CHECKING:
    from pkgllm.baselines.likes import FittedScorer, TrainingLikes


@dataclass(frozen=True, slots=True, kw_only=True)
class Random(ScorerChoice):
    r"""Draw every score uniformly: adjusted MRR is 0 up to chance.

    Among :math:`N` candidates each rank is as likely as any other, so that MRR is
    :math:`H_N / N` in expectation, with :math:`H_N = \sum_{r=1}^N 1/r`, and Hits@k is :math:`k/N`.
    Each client has its own stream, so its scores depend neither on who else is asked nor on the
    order.
    """

    name: Literal["random"] = "random"

    def fit(self, likes: TrainingLikes, *, seed: int = 0) -> FittedScorer:
        """Return a scorer that draws from [0, 1)."""
        from pkgllm.randomness import stream

        num_items = len(likes.catalogue)
        return likes.scorer(
            self.name,
            lambda query: stream(seed, "random_scorer", query.client).random(num_items),
        )
