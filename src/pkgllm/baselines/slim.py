"""SLIM: sparse item weights that are never negative, learned one item at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from pkgllm.baselines import ScorerChoice
from pkgllm.bounds import NotNegativeFloat, PositiveFloat

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pkgllm.baselines.likes import FittedScorer, TrainingLikes
    from pkgllm.evaluation.scorer import ClientQueries

_SWEEPS = 10_000
"""Passes over an item's weights at most."""
_SMALLEST_CHANGE = 1e-12
"""A pass in which no weight changes by more is the last."""
_DECIMALS = 9
"""Of a weight; what is beyond depends on the order of the items, and would break ties."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slim(ScorerChoice):
    r"""Predict each item from the likes of a few others by a non-negative elastic net.

    For the training likes :math:`X` (clients by items), Ning and Karypis 2011, for
    each item :math:`j`:

    .. math::
        \min_{w \ge 0,\; w_j = 0} \tfrac12 \lVert x_j - X w \rVert^2
        + \tfrac{\beta}{2} \lVert w \rVert^2 + \lambda \lVert w \rVert_1, \qquad s = x W

    with :math:`x` a client's visible likes, so a client needs no part in training. Coordinate
    descent on :math:`G = X^\top X` sets one weight after the other to its minimum,

    .. math::
        w_k = \max\Big(0, \frac{G_{kj} - \sum_{l \neq k} G_{kl} w_l - \lambda}{G_{kk} + \beta}\Big)

    Nothing in :math:`G` or :math:`w` is negative, so a weight can be above 0 only where
    :math:`G_{kj} > \lambda`: the other items are left out, and the result is exact all the same.
    Items that no training client likes score 0.

    Example:
        >>> from pkgllm.baselines.likes import TrainingLikes
        >>> from pkgllm.corpora.catalogue import Catalogue, Item
        >>> from pkgllm.evaluation.scorer import ClientQueries
        >>> from pkgllm.graph.personal_graph import Fact, Moment, PersonalGraph, Provenance
        >>> films = Catalogue(Item(id, f"Film {id}") for id in "abc")
        >>> likes = TrainingLikes(films, [["a", "b"], ["a", "b"], ["a", "c"]])
        >>> said = Provenance("own_answer", "conversation/1")
        >>> graph = PersonalGraph("p", (Fact("liked", "a", "Film a", Moment(0, 0), said),))
        >>> model = Slim(l1=0.5, l2=1.0).fit(likes)
        >>> model.scores([ClientQueries("p", False, graph, ("b",))]).tolist()
        [[0.0, 0.375, 0.125]]
    """

    citation: ClassVar[str] = "Ning and Karypis 2011, doi:10.1109/ICDM.2011.134"

    name: Literal["slim"] = "slim"
    l1: NotNegativeFloat = 1.0
    r"""How much each weight costs, :math:`\lambda`: the larger, the fewer items have one."""
    l2: PositiveFloat = 10.0
    r"""How much each squared weight costs, :math:`\beta`: spreads weight over similar items."""

    def fit(self, likes: TrainingLikes, *, seed: int = 0) -> FittedScorer:
        """Return the scorer :math:`x W`."""
        import numpy as np

        matrix = likes.matrix()
        weights: dict[int, tuple[list[int], list[float]]] = {}
        for item, columns, together in likes.liked_together():
            possible = (columns != item) & (together > self.l1)
            others = columns[possible]
            candidates = matrix[:, others]
            solved = self._solve(candidates.T @ candidates, together[possible].astype(np.float64))
            for other, weight in zip(others.tolist(), solved.tolist(), strict=True):
                if weight:
                    items, values = weights.setdefault(other, ([], []))
                    items.append(item)
                    values.append(weight)

        def score(query: ClientQueries) -> NDArray[np.float64]:
            scores = np.zeros(len(likes.catalogue))
            for item in likes.liked_columns(query.graph).tolist():
                if item in weights:
                    items, values = weights[item]
                    scores[items] += values
            return scores

        return likes.scorer(self.name, score)

    def _solve(self, gram: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return an item's weights of ``items`` others.

        Args:
            gram: How many clients like both of two others, shape ``(items, items)``.
            target: How many like the item and another, shape ``(items,)``.
        """
        import numpy as np

        weights = np.zeros(len(target))
        # What a weight of 0 would gain by growing; kept up to date with every change.
        slope = target - self.l1
        for _ in range(_SWEEPS):
            largest = 0.0
            for k in range(len(weights)):
                best = max(0.0, (slope[k] + gram[k, k] * weights[k]) / (gram[k, k] + self.l2))
                change = best - weights[k]
                if change:
                    slope -= gram[k] * change
                    weights[k] = best
                    largest = max(largest, abs(change))
            if largest <= _SMALLEST_CHANGE:
                break
        return np.round(weights, _DECIMALS)
