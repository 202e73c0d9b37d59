"""Popularity within liked genres: knows of a person which genres they like, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pkgllm.baselines import ScorerChoice

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pkgllm.baselines.likes import FittedScorer, TrainingLikes
    from pkgllm.evaluation.scorer import ClientQueries

_GENRE = "genre"


@dataclass(frozen=True, slots=True, kw_only=True)
class GenrePopularity(ScorerChoice):
    r"""Rank items by popularity, weighted by how much of what a person likes is of their genres.

    With :math:`n_i` the training clients that like item :math:`i`, :math:`G_i` its genres and
    :math:`w_g` the share of the person's visible liked items that carry genre :math:`g`:

    .. math:: s_i = n_i \max_{g \in G_i} w_g

    Items of no liked genre follow after all others, in the order of their popularity; so everything
    is ordered by popularity for a person who likes nothing, or in a catalogue without genres.

    Example:
        >>> from pkgllm.baselines.likes import TrainingLikes
        >>> from pkgllm.corpora.catalogue import Catalogue, Item
        >>> from pkgllm.evaluation.scorer import ClientQueries
        >>> from pkgllm.graph.personal_graph import Fact, Moment, PersonalGraph, Provenance
        >>> films = Catalogue([
        ...     Item("1", "Heat (1995)", {"genre": ("crime",)}),
        ...     Item("2", "Ran (1985)", {"genre": ("drama",)}),
        ...     Item("3", "Fargo (1996)", {"genre": ("crime", "drama")}),
        ... ])
        >>> said = Provenance("own_answer", "conversation/1")
        >>> graph = PersonalGraph("p", (Fact("liked", "1", "Heat (1995)", Moment(0, 0), said),))
        >>> model = GenrePopularity().fit(TrainingLikes(films, [["1", "2"], ["2", "3"]]))
        >>> model.scores([ClientQueries("p", False, graph, ("3",))]).tolist()
        [[1.0, -1.0, 1.0]]
    """

    name: Literal["genre_popularity"] = "genre_popularity"

    def fit(self, likes: TrainingLikes, *, seed: int = 0) -> FittedScorer:
        """Return a scorer by popularity and by the genres of a graph's likes."""
        import numpy as np

        counts = likes.counts.astype(np.float64)
        genres = sorted({genre for item in likes.catalogue for genre in item.facts.get(_GENRE, ())})
        column = {genre: index for index, genre in enumerate(genres)}
        has_genre = np.zeros((len(likes.catalogue), len(genres)), dtype=bool)
        for row, item in zip(has_genre, likes.catalogue, strict=True):
            row[[column[genre] for genre in item.facts.get(_GENRE, ())]] = True
        after_all = counts - counts.max(initial=0.0) - 1.0

        def score(query: ClientQueries) -> NDArray[np.float64]:
            liked = likes.liked_columns(query.graph)
            shares = has_genre[liked].mean(axis=0) if len(liked) else np.zeros(len(genres))
            best = np.where(has_genre, shares, 0.0).max(axis=1, initial=0.0)
            scores: NDArray[np.float64] = np.where(best > 0, counts * best, after_all)
            return scores

        return likes.scorer(self.name, score)
