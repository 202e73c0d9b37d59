"""Popularity: the baseline that knows nothing of the person."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pkgllm.baselines.likes import TrainingLikes
from pkgllm.evaluation.scorer import ClientQueries


class Popularity:
    """Rank items by how many clients like them in the training graphs, the same for everyone.

    Items with the same count tie, and are left tied.

    Args:
        likes: What the training clients like.

    Example:
        >>> from pkgllm.corpora.catalogue import Catalogue, Item
        >>> from pkgllm.graph.personal_graph import PersonalGraph
        >>> films = Catalogue([Item("1", "Heat (1995)"), Item("2", "Ran (1985)")])
        >>> query = ClientQueries("p", False, PersonalGraph("p", ()), ("1",))
        >>> Popularity(TrainingLikes(films, [["2"], ["2", "1"]])).scores([query]).tolist()
        [[1.0, 2.0]]
    """

    name = "popularity"

    def __init__(self, likes: TrainingLikes) -> None:
        self._counts = likes.counts.astype(np.float64)

    def scores(self, queries: Sequence[ClientQueries]) -> NDArray[np.float64]:
        """Return the counts, once for each client; shape ``(len(queries), len(catalogue))``."""
        return np.tile(self._counts, (len(queries), 1))
