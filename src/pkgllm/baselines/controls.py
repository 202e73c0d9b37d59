"""Controls: scorers whose results are known beforehand, so that a faulty protocol shows."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pkgllm.corpora.catalogue import Catalogue
from pkgllm.evaluation.scorer import ClientQueries
from pkgllm.randomness import stream


class RandomScorer:
    r"""Draw every score uniformly: adjusted MRR is 0 up to chance.

    Among :math:`N` candidates each rank is as likely as any other, so that MRR is
    :math:`H_N / N` in expectation, with :math:`H_N = \sum_{r=1}^N 1/r`, and Hits@k is :math:`k/N`.

    Args:
        catalogue: The items, in column order.
        seed: The run's seed. Each client has its own stream, so its scores depend neither on who
            else is asked nor on the order.
    """

    name = "random"

    def __init__(self, catalogue: Catalogue, seed: int) -> None:
        self._num_items = len(catalogue)
        self._seed = seed

    def scores(self, queries: Sequence[ClientQueries]) -> NDArray[np.float64]:
        """Return draws from [0, 1), shape ``(len(queries), len(catalogue))``."""
        found = np.empty((len(queries), self._num_items))
        for row, query in zip(found, queries, strict=True):
            row[:] = stream(self._seed, "random_scorer", query.client).random(self._num_items)
        return found


class ConstantScorer:
    """Score every item 0: the realistic rank is (N + 1) / 2 among N candidates, and never 1.

    Args:
        catalogue: The items, in column order.
    """

    name = "constant"

    def __init__(self, catalogue: Catalogue) -> None:
        self._num_items = len(catalogue)

    def scores(self, queries: Sequence[ClientQueries]) -> NDArray[np.float64]:
        """Return zeros, shape ``(len(queries), len(catalogue))``."""
        return np.zeros((len(queries), self._num_items))


class PromptCopy:
    """Repeat what the visible graph likes, newest first; all other items tie below.

    What the visible graph holds is no candidate, so under an honest protocol this is no better than
    :class:`ConstantScorer`. If it is, answers stand in the graphs that models are shown.

    Args:
        catalogue: The items, in column order.

    Example:
        >>> from pkgllm.corpora.catalogue import Item
        >>> from pkgllm.graph.personal_graph import Fact, Moment, PersonalGraph, Provenance
        >>> films = Catalogue(Item(id, f"Film {id}") for id in "abc")
        >>> said = Provenance("own_answer", "conversation/1")
        >>> graph = PersonalGraph("p", (
        ...     Fact("liked", "c", "Film c", Moment(0, 0), said),
        ...     Fact("liked", "a", "Film a", Moment(1, 0), said),
        ... ))
        >>> PromptCopy(films).scores([ClientQueries("p", True, graph, ("b",))]).tolist()
        [[2.0, 0.0, 1.0]]
    """

    name = "prompt_copy"

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    def scores(self, queries: Sequence[ClientQueries]) -> NDArray[np.float64]:
        """Return 0, or how many moments with a like there are up to an item's own, from 1.

        Shape ``(len(queries), len(catalogue))``.
        """
        found = np.zeros((len(queries), len(self._catalogue)))
        for row, query in zip(found, queries, strict=True):
            liked = query.graph.with_relation("liked")
            moments = sorted({fact.time for fact in liked})
            place = {moment: number for number, moment in enumerate(moments, start=1)}
            for fact in liked:
                if fact.tail in self._catalogue:
                    row[self._catalogue.index_by_id[fact.tail]] = place[fact.time]
        return found
