"""EASE^R: the linear autoencoder in closed form, worked out in the space of the clients."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pkgllm.baselines.likes import TrainingLikes
from pkgllm.evaluation.scorer import ClientQueries


class Ease:
    r"""Predict each item from the likes of all others by ridge regression; no item predicts itself.

    For the training likes :math:`X` (clients by items), Steck 2019, arXiv:1905.03375, equation 8:

    .. math::
        P = (X^\top X + \lambda I)^{-1}, \qquad
        B_{ij} = -P_{ij} / P_{jj} \;(i \neq j), \quad B_{jj} = 0, \qquad s = x B

    with :math:`x` a client's visible likes, so a client needs no part in training. There are far
    fewer clients than items, so the matrix of items is never formed. With
    :math:`X X^\top + \lambda I = L L^\top` and :math:`W = L^{-1} X`, Woodbury's identity gives

    .. math::
        \lambda P = I - W^\top W, \qquad
        s_j = x_j - \frac{x_j - (x W^\top W)_j}{1 - \sum_c W_{cj}^2}

    The denominator is :math:`\lambda P_{jj}`, above 0 and at most 1. Its rounding error relative to
    it is about ``2e-16`` times the largest eigenvalue of :math:`X X^\top` over :math:`\lambda`.

    Items that the same clients like have the same column in :math:`X`; each different column is
    worked out once, so that such items tie exactly, as they do in the formula, and are not told
    apart by rounding. Items that no training client likes score 0.

    Args:
        likes: What the training clients like.
        l2: :math:`\lambda`, positive.

    Raises:
        ValueError: If ``l2`` is out of range.

    Example:
        >>> from pkgllm.corpora.catalogue import Catalogue, Item
        >>> from pkgllm.graph.personal_graph import Fact, Moment, PersonalGraph, Provenance
        >>> films = Catalogue(Item(id, f"Film {id}") for id in "abc")
        >>> likes = TrainingLikes(films, [["a", "b"], ["a", "b"]])
        >>> said = Provenance("own_answer", "conversation/1")
        >>> graph = PersonalGraph("p", (Fact("liked", "a", "Film a", Moment(0, 0), said),))
        >>> query = ClientQueries("p", False, graph, ("b",))
        >>> Ease(likes, l2=2.0).scores([query]).round(6).tolist()
        [[0.0, 0.5, 0.0]]
    """

    name = "ease"

    def __init__(self, likes: TrainingLikes, *, l2: float) -> None:
        if not 0 < l2 < math.inf:
            raise ValueError(f"l2 must be a number above 0, got {l2}")
        matrix = likes.matrix()
        gram = matrix @ matrix.T
        gram[np.diag_indices_from(gram)] += l2
        different, self._place = _different_columns(matrix)
        self._likes = likes
        self._whitened: NDArray[np.float64] = np.linalg.solve(np.linalg.cholesky(gram), different)
        self._inverse_diagonal = 1.0 - np.square(self._whitened).sum(axis=0)

    def scores(self, queries: Sequence[ClientQueries]) -> NDArray[np.float64]:
        """Return :math:`x B`, shape ``(len(queries), len(catalogue))``."""
        found = np.zeros((len(queries), len(self._likes.catalogue)))
        for row, query in zip(found, queries, strict=True):
            liked = self._likes.liked_columns(query.graph)
            row[liked] = 1.0
            projected = self._whitened[:, self._place[liked]].sum(axis=1) @ self._whitened
            row -= (row - projected[self._place]) / self._inverse_diagonal[self._place]
        return found


def _different_columns(
    matrix: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the different columns of zeros and ones, and which of them stands in each place."""
    # Packed into bits, a column is one value, and much faster to sort than its entries one by one.
    packed = np.packbits(matrix.T.astype(bool), axis=1)
    _, first, place = np.unique(packed, axis=0, return_index=True, return_inverse=True)
    return matrix[:, first], place.reshape(-1)  # numpy 2.0 gives it a second axis
