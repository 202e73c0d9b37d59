"""EASE^R: the linear autoencoder in closed form, worked out in the space of the clients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from pkgllm.baselines import ScorerChoice
from pkgllm.bounds import PositiveFloat

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pkgllm.baselines.likes import FittedScorer, TrainingLikes
    from pkgllm.evaluation.scorer import ClientQueries


@dataclass(frozen=True, slots=True, kw_only=True)
class Ease(ScorerChoice):
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
    worked out once, so that such items tie exactly, as they do in the formula, and rounding
    does not separate them. Items that no training client likes score 0.

    Example:
        >>> from pkgllm.baselines.likes import TrainingLikes
        >>> from pkgllm.corpora.catalogue import Catalogue, Item
        >>> from pkgllm.evaluation.scorer import ClientQueries
        >>> from pkgllm.graph.personal_graph import Fact, Moment, PersonalGraph, Provenance
        >>> films = Catalogue(Item(id, f"Film {id}") for id in "abc")
        >>> likes = TrainingLikes(films, [["a", "b"], ["a", "b"]])
        >>> said = Provenance("own_answer", "conversation/1")
        >>> graph = PersonalGraph("p", (Fact("liked", "a", "Film a", Moment(0, 0), said),))
        >>> query = ClientQueries("p", False, graph, ("b",))
        >>> Ease(l2=2.0).fit(likes).scores([query]).round(6).tolist()
        [[0.0, 0.5, 0.0]]
    """

    citation: ClassVar[str] = "Steck 2019, arXiv:1905.03375"

    name: Literal["ease"] = "ease"
    l2: PositiveFloat = 1000.0
    """Regularisation: how far the item weights are drawn to 0."""

    def fit(self, likes: TrainingLikes, *, seed: int = 0) -> FittedScorer:
        """Return the scorer :math:`x B`."""
        import numpy as np

        matrix = likes.matrix()
        gram = matrix @ matrix.T
        gram[np.diag_indices_from(gram)] += self.l2
        different, place = _different_columns(matrix)
        whitened: NDArray[np.float64] = np.linalg.solve(np.linalg.cholesky(gram), different)
        inverse_diagonal = 1.0 - np.square(whitened).sum(axis=0)

        def score(query: ClientQueries) -> NDArray[np.float64]:
            scores = np.zeros(len(likes.catalogue))
            liked = likes.liked_columns(query.graph)
            scores[liked] = 1.0
            projected = whitened[:, place[liked]].sum(axis=1) @ whitened
            scores -= (scores - projected[place]) / inverse_diagonal[place]
            return scores

        return likes.scorer(self.name, score)


def _different_columns(
    matrix: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the different columns of zeros and ones, and which of them stands in each place."""
    import numpy as np

    # Packed into bits, a column is one value, and much faster to sort than its entries one by one.
    packed = np.packbits(matrix.T.astype(bool), axis=1)
    _, first, place = np.unique(packed, axis=0, return_index=True, return_inverse=True)
    return matrix[:, first], place.reshape(-1)  # numpy 2.0 gives it a second axis
