"""ItemKNN: what stands near the liked items in the training graphs."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pkgllm.baselines.likes import TrainingLikes
from pkgllm.evaluation.scorer import ClientQueries


class ItemKnn:
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

    Args:
        likes: What the training clients like.
        neighbours: :math:`k`, at least 1.
        shrinkage: :math:`h`, not negative; takes from pairs that few clients vouch for.

    Raises:
        ValueError: If a parameter is out of range.

    Example:
        >>> from pkgllm.corpora.catalogue import Catalogue, Item
        >>> from pkgllm.graph.personal_graph import Fact, Moment, PersonalGraph, Provenance
        >>> films = Catalogue(Item(id, f"Film {id}") for id in "abc")
        >>> likes = TrainingLikes(films, [["a", "b"], ["a", "b"], ["a", "c"], ["a"]])
        >>> said = Provenance("own_answer", "conversation/1")
        >>> graph = PersonalGraph("p", (Fact("liked", "a", "Film a", Moment(0, 0), said),))
        >>> scorer = ItemKnn(likes, neighbours=2, shrinkage=0.0)
        >>> scorer.scores([ClientQueries("p", False, graph, ("b",))]).round(3).tolist()
        [[0.0, 0.707, 0.5]]
    """

    name = "item_knn"

    def __init__(self, likes: TrainingLikes, *, neighbours: int, shrinkage: float) -> None:
        if neighbours < 1:
            raise ValueError(f"neighbours must be at least 1, got {neighbours}")
        if not 0 <= shrinkage < math.inf:
            raise ValueError(f"shrinkage must be a number from 0, got {shrinkage}")
        self._likes = likes
        self._nearest = {
            item: _nearest(likes, item, baskets, neighbours, shrinkage)
            for item, baskets in _baskets_by_item(likes).items()
        }

    def scores(self, queries: Sequence[ClientQueries]) -> NDArray[np.float64]:
        """Return the summed similarities, shape ``(len(queries), len(catalogue))``."""
        found = np.zeros((len(queries), len(self._likes.catalogue)))
        for row, query in zip(found, queries, strict=True):
            for item in self._likes.liked_columns(query.graph).tolist():
                if item in self._nearest:
                    columns, similarities = self._nearest[item]
                    row[columns] += similarities
        return found


def _baskets_by_item(likes: TrainingLikes) -> dict[int, list[NDArray[np.int64]]]:
    """Return, for each item that anybody likes, the likes of all clients that like it."""
    baskets: dict[int, list[NDArray[np.int64]]] = {}
    for columns in likes.columns:
        for item in columns.tolist():
            baskets.setdefault(item, []).append(columns)
    return baskets


def _nearest(
    likes: TrainingLikes,
    item: int,
    baskets: Sequence[NDArray[np.int64]],
    neighbours: int,
    shrinkage: float,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the columns of an item's nearest items, and how similar they are."""
    columns, together = np.unique(np.concatenate(baskets), return_counts=True)
    others = columns != item
    columns, together = columns[others], together[others]
    cosine_base = np.sqrt(likes.counts[item] * likes.counts[columns])
    similarities = together / (cosine_base + shrinkage)
    if len(columns) > neighbours:
        near = similarities >= np.partition(similarities, -neighbours)[-neighbours]
        columns, similarities = columns[near], similarities[near]
    return columns, similarities
