"""Popularity: the baseline that knows nothing of the person."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pkgllm.baselines import ScorerChoice

if TYPE_CHECKING:
    from pkgllm.baselines.likes import FittedScorer, TrainingLikes


@dataclass(frozen=True, slots=True, kw_only=True)
class Popularity(ScorerChoice):
    """Rank items by how many clients like them in the training graphs, the same for everyone.

    Items with the same count tie, and are left tied.

    Example:
        >>> from pkgllm.baselines.likes import TrainingLikes
        >>> from pkgllm.corpora.catalogue import Catalogue, Item
        >>> from pkgllm.evaluation.scorer import ClientQueries
        >>> from pkgllm.graph.personal_graph import PersonalGraph
        >>> films = Catalogue([Item("1", "Heat (1995)"), Item("2", "Ran (1985)")])
        >>> model = Popularity().fit(TrainingLikes(films, [["2"], ["2", "1"]]))
        >>> model.scores([ClientQueries("p", False, PersonalGraph("p", ()), ("1",))]).tolist()
        [[1.0, 2.0]]
    """

    name: Literal["popularity"] = "popularity"

    def fit(self, likes: TrainingLikes, *, seed: int = 0) -> FittedScorer:
        """Return a scorer by the number of training clients that like an item."""
        counts = likes.counts.astype(float)
        return likes.scorer(self.name, lambda query: counts)
