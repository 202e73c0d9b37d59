"""What the training clients like, in catalogue columns: all that simple baselines learn from."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from pkgllm.corpora.catalogue import Catalogue
from pkgllm.errors import DataError
from pkgllm.evaluation.scorer import ClientQueries
from pkgllm.graph.personal_graph import PersonalGraph


class TrainingLikes:
    """The liked items of each training client: the rows of a sparse matrix of zeros and ones.

    Args:
        catalogue: The items, in column order.
        clients: For each training client, the ids of what it likes; an id counts once.

    Raises:
        DataError: If a liked item is not in the catalogue.

    Example:
        >>> from pkgllm.corpora.catalogue import Item
        >>> films = Catalogue([Item("1", "Heat (1995)"), Item("2", "Ran (1985)")])
        >>> TrainingLikes(films, [["2"], ["2", "1"]]).matrix().tolist()
        [[0.0, 1.0], [1.0, 1.0]]
    """

    def __init__(self, catalogue: Catalogue, clients: Iterable[Collection[str]]) -> None:
        self.catalogue = catalogue
        self.columns: tuple[NDArray[np.int64], ...] = tuple(
            np.array(sorted(self._column(item) for item in set(liked)), dtype=np.int64)
            for liked in clients
        )
        """Columns of what each client likes, ascending."""
        self.counts: NDArray[np.int64] = np.zeros(len(catalogue), dtype=np.int64)
        """How many clients like each item, shape ``(catalogue,)``."""
        for columns in self.columns:
            self.counts[columns] += 1

    @classmethod
    def within(cls, catalogue: Catalogue, clients: Iterable[Collection[str]]) -> "TrainingLikes":
        """Return the likes among the items of a catalogue, which may be another folder's."""
        return cls(catalogue, [[item for item in own if item in catalogue] for own in clients])

    def matrix(self) -> NDArray[np.float64]:
        """Return 1 where a client likes an item, else 0, shape ``(clients, catalogue)``."""
        matrix = np.zeros((len(self.columns), len(self.catalogue)))
        for row, columns in zip(matrix, self.columns, strict=True):
            row[columns] = 1.0
        return matrix

    def liked_together(self) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.int64]]]:
        """Yield each item that anybody likes, with what its clients like and how many like both.

        Both arrays have shape ``(items,)``; columns ascend, and the item is among them.
        """
        baskets: dict[int, list[NDArray[np.int64]]] = {}
        for columns in self.columns:
            for item in columns.tolist():
                baskets.setdefault(item, []).append(columns)
        for item, of_item in baskets.items():
            columns, together = np.unique(np.concatenate(of_item), return_counts=True)
            yield item, columns, together

    def liked_columns(self, graph: PersonalGraph) -> NDArray[np.int64]:
        """Return the columns of what a graph likes, ascending; other items have none."""
        index = self.catalogue.index_by_id
        liked = (fact.tail for fact in graph.with_relation("liked"))
        return np.array(sorted(index[item] for item in liked if item in index), dtype=np.int64)

    def scorer(
        self, name: str, score: Callable[[ClientQueries], NDArray[np.float64]]
    ) -> "FittedScorer":
        """Return a scorer that applies a function to each client.

        Args:
            name: The scorer's name in results.
            score: Scores every item for one client, shape ``(catalogue,)``.
        """
        return FittedScorer(name, len(self.catalogue), score)

    def _column(self, item: str) -> int:
        if item not in self.catalogue:
            raise DataError(
                f"training likes: the liked item {item!r} is not in the catalogue of "
                f"{len(self.catalogue)} items; take both from one corpus"
            )
        return self.catalogue.index_by_id[item]


class FittedScorer:
    """A scorer made of what was learned from likes; made by :meth:`TrainingLikes.scorer`."""

    def __init__(
        self, name: str, num_items: int, score: Callable[[ClientQueries], NDArray[np.float64]]
    ) -> None:
        self.name = name
        self._num_items = num_items
        self._score = score

    def scores(self, queries: Sequence[ClientQueries]) -> NDArray[np.float64]:
        """Return each client's scores, shape ``(len(queries), len(catalogue))``."""
        scores = np.empty((len(queries), self._num_items))
        for row, query in zip(scores, queries, strict=True):
            row[:] = self._score(query)
        return scores
