"""What lists of recommended items are like, whether or not the items are liked.

A client for whom a model failed has an empty list. It counts: it covers and exposes nothing, and
0 is its share, novelty and diversity in the mean over clients. Only the popularity lift leaves it
out, since there is no list to compare.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pkgllm.corpora.catalogue import Catalogue

_HEAD_SHARE = (4, 5)
"""Share of the training likes that the head holds, as a fraction, so that no rounding decides."""


@dataclass(frozen=True, slots=True)
class Lists:
    """One list of distinct items for each client, all of them behind each other."""

    columns: NDArray[np.int64]
    """Catalogue columns of the items. Shape ``(places,)``."""
    lengths: NDArray[np.int64]
    """Shape ``(clients,)``."""

    @classmethod
    def of(cls, lists: Sequence[Sequence[str]], catalogue: Catalogue) -> "Lists":
        """Look up the columns of listed ids, all of which must be in the catalogue."""
        columns = [catalogue.index_by_id[item] for items in lists for item in items]
        return cls(
            np.array(columns, dtype=np.int64),
            np.array([len(items) for items in lists], dtype=np.int64),
        )

    @property
    def owners(self) -> NDArray[np.int64]:
        """The list that each place belongs to, shape ``(places,)``."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)

    def means(self, of_item: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the mean of each list's items, 0 for an empty list; shape ``(clients,)``.

        Args:
            of_item: A value for every item. Shape ``(len(catalogue),)``.
        """
        sums = np.bincount(self.owners, of_item[self.columns], minlength=len(self.lengths))
        return sums / np.maximum(self.lengths, 1)


@dataclass(frozen=True, slots=True)
class BeyondAccuracy:
    """The measures of one model's lists; None where a measure is undefined, as each says."""

    coverage: float
    """Share of the catalogue that stands in at least one list."""
    tail_coverage: float | None
    """Share of the tail that stands in at least one list; None without a tail."""
    tail_share: float | None
    """Mean over clients of the share of their list that is tail."""
    novelty: float | None
    """Mean over clients of their list's mean :func:`self_information`, in bits."""
    diversity: float | None
    """Mean over clients of their list's :func:`intra_list_diversity`; None where no item of the
    catalogue has a genre."""
    exposure_gini: float | None
    """:func:`gini` of how many lists each item of the catalogue stands in; None where all lists
    are empty."""
    popularity_lift: float | None
    """:func:`popularity_lift` over the clients' visible likes."""


class ListMeasures:
    """Measures any model's lists for the same clients.

    Args:
        profiles: Ids of the items that each client visibly likes; those that the catalogue lacks
            are passed over.
        catalogue: The items, with their facts of the relation ``genre``.
        training_likes: How many training clients like each item, in column order; tail, novelty and
            popularity need them. Shape ``(len(catalogue),)``.

    Raises:
        ValueError: If the training likes have another shape or a negative count.

    Example:
        >>> from pkgllm.corpora.catalogue import Item
        >>> films = Catalogue([Item("1", "Heat (1995)"), Item("2", "Ran (1985)")])
        >>> measures = ListMeasures([["2"], []], films, np.array([3.0, 1.0])).of([["1"], ["1"]])
        >>> measures.coverage, measures.exposure_gini, measures.popularity_lift
        (0.5, 0.5, 2.0)
    """

    def __init__(
        self,
        profiles: Sequence[Sequence[str]],
        catalogue: Catalogue,
        training_likes: NDArray[np.float64] | None,
    ) -> None:
        if training_likes is not None and (
            training_likes.shape != (len(catalogue),) or not (training_likes >= 0).all()
        ):
            raise ValueError(
                f"training likes must be {len(catalogue)} counts of 0 or more, one for each item "
                f"of the catalogue, got shape {training_likes.shape}: {training_likes}"
            )
        known = [[item for item in profile if item in catalogue] for profile in profiles]
        self._profiles = Lists.of(known, catalogue)
        self._catalogue = catalogue
        self._vectors = genre_vectors(catalogue)
        self._likes = training_likes

    def of(self, lists: Sequence[Sequence[str]]) -> BeyondAccuracy:
        """Measure one model's lists: ids of the items listed for each client, each id once."""
        if len(lists) != len(self._profiles.lengths):
            raise ValueError(
                f"there must be a list for each of {len(self._profiles.lengths)} clients, got "
                f"{len(lists)}"
            )
        listed = Lists.of(lists, self._catalogue)
        exposure = np.bincount(listed.columns, minlength=len(self._catalogue)).astype(np.float64)
        covered = exposure > 0
        diversity = intra_list_diversity(listed, self._vectors)
        tail_coverage = tail_share = novelty = lift = None
        if self._likes is not None:
            tail = long_tail(self._likes)
            tail_coverage = float(covered[tail].mean()) if tail.any() else None
            tail_share = float(listed.means(tail.astype(np.float64)).mean())
            novelty = float(listed.means(self_information(self._likes)).mean())
            lift = popularity_lift(listed, self._profiles, self._likes)
        return BeyondAccuracy(
            coverage=float(covered.mean()),
            tail_coverage=tail_coverage,
            tail_share=tail_share,
            novelty=novelty,
            diversity=None if diversity is None else float(diversity.mean()),
            exposure_gini=gini(exposure),
            popularity_lift=lift,
        )


def long_tail(training_likes: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which items stand outside the head, the fewest items that hold 80 % of the likes.

    Items are taken into the head by their likes, most first, equals in column order.

    Args:
        training_likes: Shape ``(items,)``.

    Example:
        >>> long_tail(np.array([1.0, 6.0, 2.0, 1.0])).tolist()
        [True, False, False, True]
    """
    held, of = _HEAD_SHARE
    order = np.argsort(-training_likes, kind="stable")
    ahead = np.cumsum(training_likes[order]) - training_likes[order]
    tail = np.empty(len(order), dtype=bool)
    tail[order] = ahead * of >= training_likes.sum() * held
    return tail


def self_information(training_likes: NDArray[np.float64]) -> NDArray[np.float64]:
    r"""Return how many bits it says that a random training like is of each item.

    :math:`-\log_2 p_i` with :math:`p_i = (n_i + 1) / \sum_j (n_j + 1)`, Laplace-smoothed, so that
    items without a like have a finite value. Source: the free discovery of Vargas and Castells
    2011, "Rank and relevance in novelty and diversity metrics for recommender systems".

    Args:
        training_likes: :math:`n`, shape ``(items,)``.

    Example:
        >>> self_information(np.array([1.0, 0.0, 0.0])).tolist()
        [1.0, 2.0, 2.0]
    """
    smoothed = training_likes + 1.0
    bits: NDArray[np.float64] = -np.log2(smoothed / smoothed.sum())
    return bits


def genre_vectors(catalogue: Catalogue, relation: str = "genre") -> NDArray[np.float64]:
    """Return one vector per item, a 1 for each of its genres, divided by its length.

    Args:
        catalogue: The items.
        relation: What stands for genre in a domain that has none.

    Returns:
        Shape ``(len(catalogue), genres)``; all zeros for an item without genres.
    """
    genres = [set(item.facts.get(relation, ())) for item in catalogue]
    place = {genre: index for index, genre in enumerate(sorted(set().union(*genres)))}
    vectors = np.zeros((len(catalogue), len(place)))
    for column, of_item in enumerate(genres):
        vectors[column, [place[genre] for genre in of_item]] = 1 / np.sqrt(max(len(of_item), 1))
    return vectors


def intra_list_diversity(lists: Lists, vectors: NDArray[np.float64]) -> NDArray[np.float64] | None:
    r"""Return each list's mean of 1 - cosine over its pairs of items.

    An item without genres is in no pair: not to know what it has in common with another is not to
    differ. A list without a pair has 0. Source: Castells, Vargas and Wang 2011, "Novelty and
    diversity metrics for recommender systems", with cosine as the similarity.

    Args:
        lists: One for each client.
        vectors: As made by :func:`genre_vectors`.

    Returns:
        Shape ``(clients,)``; None where no item has a genre.

    Example:
        >>> vectors = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 0.0]])
        >>> lists = Lists(np.array([0, 1, 2, 3, 1, 2]), np.array([4, 2, 0]))
        >>> intra_list_diversity(lists, vectors).round(3).tolist()
        [0.667, 0.0, 0.0]
    """
    has_genre: NDArray[np.bool_] = np.any(vectors > 0, axis=1)
    if not has_genre.any():
        return None
    sums = np.zeros((len(lists.lengths), vectors.shape[1]))
    np.add.at(sums, lists.owners, vectors[lists.columns])
    known = has_genre[lists.columns]
    sizes = np.bincount(lists.owners, known, minlength=len(lists.lengths))
    pairs = sizes * (sizes - 1) / 2
    # A list's squared sum of unit vectors holds every pair's cosine twice, and each item's 1.
    cosines = (np.square(sums).sum(axis=1) - sizes) / 2
    # A sum of equal vectors may pass the number of pairs by rounding.
    diversity: NDArray[np.float64] = np.clip(1 - cosines / np.maximum(pairs, 1), 0, 1) * (pairs > 0)
    return diversity


def gini(exposure: NDArray[np.float64]) -> float | None:
    r"""Return the Gini coefficient of what items get: 0 when all alike, near 1 when one gets all.

    With :math:`x` in rising order, :math:`\sum_i (2i - n - 1) x_i / (n \sum_i x_i)`; the whole
    catalogue counts, also items that get nothing. Source: Castells, Hurley and Vargas 2015,
    "Novelty and diversity in recommender systems".

    Args:
        exposure: Not negative. Shape ``(items,)``.

    Returns:
        None where nobody gets anything.

    Example:
        >>> gini(np.array([2.0, 2.0])), gini(np.array([0.0, 0.0, 0.0, 5.0]))
        (0.0, 0.75)
    """
    if not exposure.any():
        return None
    num_items = len(exposure)
    weights = 2 * np.arange(1, num_items + 1) - num_items - 1
    return float(weights @ np.sort(exposure) / (num_items * exposure.sum()))


def popularity_lift(
    lists: Lists, profiles: Lists, training_likes: NDArray[np.float64]
) -> float | None:
    r"""Return how much more popular lists are than what their clients like already.

    :math:`(G_l - G_p) / G_p`, with :math:`G` the mean over clients of the mean training likes of
    their list's (:math:`l`) or their profile's (:math:`p`) items. Source: Abdollahpouri et al.
    2019, "The unfairness of popularity bias in recommendation", arXiv:1907.13286.

    Args:
        lists: One for each client.
        profiles: What each of the same clients likes. A client without a list or a profile is
            left out of both means.
        training_likes: Shape ``(items,)``.

    Returns:
        None where no client is left, or no profile holds an item with training likes.

    Example:
        >>> one, other = Lists(np.array([0]), np.array([1])), Lists(np.array([1]), np.array([1]))
        >>> popularity_lift(one, other, np.array([3.0, 2.0]))
        0.5
    """
    both = (lists.lengths > 0) & (profiles.lengths > 0)
    in_profiles = float(profiles.means(training_likes)[both].sum())
    if in_profiles == 0:
        return None
    return float(lists.means(training_likes)[both].sum()) / in_profiles - 1
