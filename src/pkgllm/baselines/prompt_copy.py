"""A control that finds answers which stand in the graphs that models are shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pkgllm.baselines import ScorerChoice

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pkgllm.baselines.likes import FittedScorer, TrainingLikes
    from pkgllm.evaluation.scorer import ClientQueries


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptCopy(ScorerChoice):
    """Repeat what the visible graph likes, newest first; all other items tie below.

    An item's score is how many moments with a like there are up to its own, from 1, or 0. What the
    visible graph holds is no candidate, so under an honest protocol this is no better than
    :class:`~pkgllm.baselines.constant.Constant`. If it is, answers stand in the graphs.

    Example:
        >>> from pkgllm.baselines.likes import TrainingLikes
        >>> from pkgllm.corpora.catalogue import Catalogue, Item
        >>> from pkgllm.evaluation.scorer import ClientQueries
        >>> from pkgllm.graph.personal_graph import Fact, Moment, PersonalGraph, Provenance
        >>> films = Catalogue(Item(id, f"Film {id}") for id in "abc")
        >>> said = Provenance("own_answer", "conversation/1")
        >>> graph = PersonalGraph("p", (
        ...     Fact("liked", "c", "Film c", Moment(0, 0), said),
        ...     Fact("liked", "a", "Film a", Moment(1, 0), said),
        ... ))
        >>> model = PromptCopy().fit(TrainingLikes(films, []))
        >>> model.scores([ClientQueries("p", True, graph, ("b",))]).tolist()
        [[2.0, 0.0, 1.0]]
    """

    name: Literal["prompt_copy"] = "prompt_copy"

    def fit(self, likes: TrainingLikes, *, seed: int = 0) -> FittedScorer:
        """Return a scorer that reads visible graphs alone."""
        import numpy as np

        def score(query: ClientQueries) -> NDArray[np.float64]:
            scores = np.zeros(len(likes.catalogue))
            liked = query.graph.with_relation("liked")
            moments = sorted({fact.time for fact in liked})
            place = {moment: number for number, moment in enumerate(moments, start=1)}
            for fact in liked:
                if fact.tail in likes.catalogue:
                    scores[likes.catalogue.index_by_id[fact.tail]] = place[fact.time]
            return scores

        return likes.scorer(self.name, score)
