"""Metrics of realistic ranks: terms for each query, summed elsewhere.

A metric is a ratio of two sums over queries. For all but the adjusted MRR the lower one counts the
queries, so the ratio is a mean.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from pkgllm.errors import ConfigError
from pkgllm.registry import did_you_mean


def hits_at_k(ranks: NDArray[np.float64], *, k: int) -> NDArray[np.float64]:
    """Return 1 where the realistic rank is at most ``k``, else 0.

    Its mean is Hits@k, which for one gold item per query is Recall@k.

    Example:
        >>> hits_at_k(np.array([1.0, 3.5]), k=3).tolist()
        [1.0, 0.0]
    """
    return (ranks <= k).astype(np.float64)


def reciprocal_rank(ranks: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return one over the realistic rank; its mean is MRR, over all candidates, never cut.

    Example:
        >>> reciprocal_rank(np.array([1.0, 4.0])).tolist()
        [1.0, 0.25]
    """
    return 1.0 / ranks


def ndcg_at_k(ranks: NDArray[np.float64], *, k: int) -> NDArray[np.float64]:
    r"""Return :math:`1 / \log_2(1 + r)` where the rank :math:`r` is at most ``k``, else 0.

    Of the realistic rank, it is nDCG@k of a query with one gold item, whose ideal DCG is 1. Source:
    Järvelin and Kekäläinen 2002, "Cumulated gain-based evaluation of IR techniques".

    Example:
        >>> ndcg_at_k(np.array([1.0, 3.0, 11.0]), k=10).tolist()
        [1.0, 0.5, 0.0]
    """
    return hits_at_k(ranks, k=k) / np.log2(1.0 + ranks)


def chance_reciprocal_rank(num_ranked: NDArray[np.int64]) -> NDArray[np.float64]:
    r"""Return the expected reciprocal rank of an item in a random order of ``num_ranked`` items.

    With :math:`N` items it is :math:`H_N / N = \frac{1}{N} \sum_{r=1}^{N} 1/r`.

    Args:
        num_ranked: At least 1.

    Example:
        >>> chance_reciprocal_rank(np.array([1, 2, 4])).round(4).tolist()
        [1.0, 0.75, 0.5208]
    """
    harmonic = np.cumsum(1.0 / np.arange(1, num_ranked.max(initial=1) + 1))
    expected: NDArray[np.float64] = harmonic[num_ranked - 1] / num_ranked
    return expected


@dataclass(frozen=True, slots=True)
class Terms:
    """What each query adds to the two sums whose ratio is a metric, both ``(queries,)``."""

    upper: NDArray[np.float64]
    lower: NDArray[np.float64]
    """Not negative; where it is 0, so is the upper term."""


Metric = Callable[[NDArray[np.float64], NDArray[np.int64]], Terms]
"""From the realistic ranks and the numbers of items that were ranked, both ``(queries,)``."""


def mean_of(
    value: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    ranks: NDArray[np.float64],
    num_ranked: NDArray[np.int64],
) -> Terms:
    """Return the terms of a mean over queries, which asks for no more than the ranks."""
    return Terms(value(ranks), np.ones(num_ranked.shape))


def adjusted_mrr(ranks: NDArray[np.float64], num_ranked: NDArray[np.int64]) -> Terms:
    r"""Return the terms of MRR above chance, as a share of what is possible above chance.

    With :math:`E_q` the :func:`chance_reciprocal_rank` of query :math:`q`:

    .. math:: \frac{\sum_q (1 / r_q - E_q)}{\sum_q (1 - E_q)}

    1 when every item stands first, 0 in expectation for a random order, negative below it; so
    catalogues of different sizes can be compared. It is PyKEEN's adjusted inverse harmonic mean
    rank (Berrendorf et al. 2020, arXiv:2002.06914; Hoyt et al. 2022, arXiv:2203.07544). A query
    that ranks one item only adds nothing to either sum, as chance is already perfect there.

    Example:
        >>> terms = adjusted_mrr(np.array([1.0, 2.0]), np.array([2, 2]))
        >>> float(terms.upper.sum() / terms.lower.sum())
        0.0
    """
    chance = chance_reciprocal_rank(num_ranked)
    return Terms(reciprocal_rank(ranks) - chance, 1.0 - chance)


METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        "hits@1": partial(mean_of, partial(hits_at_k, k=1)),
        "hits@3": partial(mean_of, partial(hits_at_k, k=3)),
        "hits@10": partial(mean_of, partial(hits_at_k, k=10)),
        "hits@50": partial(mean_of, partial(hits_at_k, k=50)),
        "mrr": partial(mean_of, reciprocal_rank),
        "adjusted_mrr": adjusted_mrr,
        "ndcg@10": partial(mean_of, partial(ndcg_at_k, k=10)),
    }
)
"""The reported metrics by their name in results."""


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


def check_metrics(metrics: Sequence[str]) -> None:
    """Check names of metrics that a person gave.

    Raises:
        ConfigError: If one is unknown, or given twice.
    """
    for index, metric in enumerate(metrics):
        if metric not in METRICS:
            close = did_you_mean(metric, METRICS)
            raise ConfigError(
                f"--metric {metric}: must be one of {', '.join(METRICS)}"
                f"{f'; did you mean {close}?' if close else ''}"
            )
        if metric in metrics[:index]:
            raise ConfigError(f"--metric {metric}: must be given once, got it twice")
