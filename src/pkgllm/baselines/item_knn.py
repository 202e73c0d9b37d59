"""ItemKNN: what stands near the liked items in the training graphs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from pkgllm.baselines import ScorerChoice
from pkgllm.bounds import NotNegativeFloat, Positive

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pkgllm.baselines.likes import FittedScorer, TrainingLikes
    from pkgllm.evaluation.scorer import ClientQueries


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemKnn(ScorerChoice):
    r"""Add up how similar an item is to each visible like, where it is among that like's nearest.

    With :math:`n_i` training clients that like item :math:`i` and :math:`n_{ij}` that like both,

    .. math::
        \mathrm{sim}(i, j) = \frac{n_{ij}}{\sqrt{n_i n_j} + h}, \qquad
        s(j) = \sum_{i \text{ liked},\; j \in N_k(i)} \mathrm{sim}(i, j)

    where :math:`N_k(i)` holds the :math:`k` items most similar to :math:`i`, never :math:`i`
    itself. Items as similar as the last of them belong to it too, so that no rank depends on the
    order of the catalogue. A client needs no part in training: only its visible likes are asked.

    Sources: Sarwar et al. 2001, "Item-based collaborative filtering recommendation algorithms"
    (cosine); Deshpande and Karypis 2004, "Item-based top-N recommendation algorithms" (the sum
    over the nearest of each liked item); Ferrari Dacrema et al. 2019, arXiv:1907.06902 (where
    :math:`h` stands).

    Example:
        >>> from pkgllm.baselines.likes import TrainingLikes
        >>> from pkgllm.corpora.catalogue import Catalogue, Item
        >>> from pkgllm.evaluation.scorer import ClientQueries
        >>> from pkgllm.graph.personal_graph import Fact, Moment, PersonalGraph, Provenance
        >>> films = Catalogue(Item(id, f"Film {id}") for id in "abc")
        >>> likes = TrainingLikes(films, [["a", "b"], ["a", "b"], ["a", "c"], ["a"]])
        >>> said = Provenance("own_answer", "conversation/1")
        >>> graph = PersonalGraph("p", (Fact("liked", "a", "Film a", Moment(0, 0), said),))
        >>> model = ItemKnn(neighbours=2, shrinkage=0.0).fit(likes)
        >>> model.scores([ClientQueries("p", False, graph, ("b",))]).round(3).tolist()
        [[0.0, 0.707, 0.5]]
    """

    citation: ClassVar[str] = "Sarwar et al. 2001; Deshpande and Karypis 2004"

    name: Literal["item_knn"] = "item_knn"
    neighbours: Positive = 100
    """Most similar items that an item is scored by."""
    shrinkage: NotNegativeFloat = 300.0
    """Is added to the denominator of a similarity: lowers that of pairs which few clients like."""

    def fit(self, likes: TrainingLikes, *, seed: int = 0) -> FittedScorer:
        """Return a scorer by the nearest items of a graph's likes."""
        import numpy as np

        nearest: dict[int, tuple[NDArray[np.int64], NDArray[np.float64]]] = {}
        for item, columns, together in likes.liked_together():
            others = columns != item
            columns, together = columns[others], together[others]
            cosine_base = np.sqrt(likes.counts[item] * likes.counts[columns])
            similarities = together / (cosine_base + self.shrinkage)
            if len(columns) > self.neighbours:
                last = np.partition(similarities, -self.neighbours)[-self.neighbours]
                near = similarities >= last
                columns, similarities = columns[near], similarities[near]
            nearest[item] = columns, similarities

        def score(query: ClientQueries) -> NDArray[np.float64]:
            scores = np.zeros(len(likes.catalogue))
            for item in likes.liked_columns(query.graph).tolist():
                if item in nearest:
                    columns, similarities = nearest[item]
                    scores[columns] += similarities
            return scores

        return likes.scorer(self.name, score)
