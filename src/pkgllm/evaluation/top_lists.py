"""Precision and recall of every client's list of best candidates, cut at a fixed length."""

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray


def top_list_terms(
    lists: Sequence[Sequence[str]], gold: Sequence[Collection[str]], *, k: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    r"""Return what each client adds to the sums behind precision@k and recall@k.

    With :math:`L_c` the client's best :math:`k` candidates and :math:`G_c` its held-out items, none
    of which is filtered here:

    .. math::
        P@k = \frac{\sum_c |L_c \cap G_c|}{\sum_c k}, \qquad
        R@k = \frac{\sum_c |L_c \cap G_c|}{\sum_c |G_c|}

    A list that is shorter than :math:`k`, or empty after a failure, is divided by :math:`k` all the
    same, so nobody gains by answering less. Definitions: Manning, Raghavan and Schütze 2008,
    "Introduction to Information Retrieval", section 8.4, as micro averages.

    Args:
        lists: Ids, best first, at least the first ``k`` of what a client was given.
        gold: Ids of the held-out items, distinct.
        k: Length of the lists.

    Returns:
        Hits, ``k`` and held-out items of each client, each of shape ``(clients,)``.

    Example:
        >>> terms = top_list_terms([["a", "b", "c"], []], [["b", "x"], ["y"]], k=2)
        >>> [term.tolist() for term in terms]
        [[1.0, 0.0], [2.0, 2.0], [2.0, 1.0]]
    """
    hits = [
        len(set(items[:k]) & set(of_client)) for items, of_client in zip(lists, gold, strict=True)
    ]
    return (
        np.array(hits, dtype=np.float64),
        np.full(len(lists), float(k)),
        np.array([len(of_client) for of_client in gold], dtype=np.float64),
    )
