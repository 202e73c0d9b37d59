"""Baselines without parameters."""

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from pkgllm.corpora.catalogue import Catalogue
from pkgllm.errors import DataError
from pkgllm.evaluation.scorer import ClientQueries


class Popularity:
    """Rank items by how many clients like them in the training graphs, the same for everyone.

    Items with the same count tie, and are left tied.

    Args:
        catalogue: The items, in column order.
        likes: The tail of every liked fact in the training graphs.

    Raises:
        DataError: If a liked item is not in the catalogue.

    Example:
        >>> from pkgllm.corpora.catalogue import Item
        >>> from pkgllm.graph.personal_graph import PersonalGraph
        >>> films = Catalogue([Item("1", "Heat (1995)"), Item("2", "Ran (1985)")])
        >>> query = ClientQueries("p", False, PersonalGraph("p", ()), ("1",))
        >>> Popularity(films, ["2", "2", "1"]).scores([query]).tolist()
        [[1.0, 2.0]]
    """

    name = "popularity"

    def __init__(self, catalogue: Catalogue, likes: Iterable[str]) -> None:
        self.counts: NDArray[np.float64] = np.zeros(len(catalogue))
        for item, count in Counter(likes).items():
            if item not in catalogue:
                raise DataError(
                    f"popularity: the liked item {item!r} is not in the catalogue of "
                    f"{len(catalogue)} items"
                )
            self.counts[catalogue.index_by_id[item]] = count

    def scores(self, queries: Sequence[ClientQueries]) -> NDArray[np.float64]:
        """Return the counts, once for each client; shape ``(len(queries), len(catalogue))``."""
        return np.tile(self.counts, (len(queries), 1))
