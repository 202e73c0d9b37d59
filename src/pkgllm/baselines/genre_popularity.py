"""Popularity within liked genres: knows of a person which genres they like, and nothing else."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pkgllm.baselines.likes import TrainingLikes
from pkgllm.evaluation.scorer import ClientQueries

_GENRE = "genre"


class GenrePopularity:
    r"""Rank items by popularity, weighted by how much of what a person likes is of their genres.

    With :math:`n_i` the training clients that like item :math:`i`, :math:`G_i` its genres and
    :math:`w_g` the share of the person's visible liked items that carry genre :math:`g`:

    .. math:: s_i = n_i \max_{g \in G_i} w_g

    Items of no liked genre follow after all others, in the order of their popularity; so everything
    is ordered by popularity for a person who likes nothing, or in a catalogue without genres.

    Args:
        likes: What the training clients like.

    Example:
        >>> from pkgllm.corpora.catalogue import Catalogue, Item
        >>> from pkgllm.graph.personal_graph import Fact, Moment, PersonalGraph, Provenance
        >>> films = Catalogue([
        ...     Item("1", "Heat (1995)", {"genre": ("crime",)}),
        ...     Item("2", "Ran (1985)", {"genre": ("drama",)}),
        ...     Item("3", "Fargo (1996)", {"genre": ("crime", "drama")}),
        ... ])
        >>> said = Provenance("own_answer", "conversation/1")
        >>> graph = PersonalGraph("p", (Fact("liked", "1", "Heat (1995)", Moment(0, 0), said),))
        >>> model = GenrePopularity(TrainingLikes(films, [["1", "2"], ["2", "3"]]))
        >>> model.scores([ClientQueries("p", False, graph, ("3",))]).tolist()
        [[1.0, -1.0, 1.0]]
    """

    name = "genre_popularity"

    def __init__(self, likes: TrainingLikes) -> None:
        self._likes = likes
        self._counts = likes.counts.astype(np.float64)
        genres = sorted({genre for item in likes.catalogue for genre in item.facts.get(_GENRE, ())})
        column = {genre: index for index, genre in enumerate(genres)}
        self._has = np.zeros((len(likes.catalogue), len(genres)), dtype=bool)
        for row, item in zip(self._has, likes.catalogue, strict=True):
            row[[column[genre] for genre in item.facts.get(_GENRE, ())]] = True

    def scores(self, queries: Sequence[ClientQueries]) -> NDArray[np.float64]:
        """Return the scores; shape ``(len(queries), len(catalogue))``."""
        return np.stack([self._of(query) for query in queries])

    def _of(self, query: ClientQueries) -> NDArray[np.float64]:
        liked = self._likes.liked_columns(query.graph)
        shares = self._has[liked].mean(axis=0) if len(liked) else np.zeros(self._has.shape[1])
        best = np.where(self._has, shares, 0.0).max(axis=1, initial=0.0)
        after_all = self._counts - self._counts.max(initial=0.0) - 1.0
        scored: NDArray[np.float64] = np.where(best > 0, self._counts * best, after_all)
        return scored
