r"""How good lists are: precision, recall and F1 over all queries, and what comes before them.

Every client counts, whatever its answer. With :math:`L_c` the client's list cut to K and
:math:`G_c` its held-out items, :math:`TP_c = |L_c \cap G_c|`; an empty list has no true positive
and misses all of :math:`G_c`. Lists may be shorter than K, so precision is over their true length;
where all have K items it is P@K. Definitions: Manning, Raghavan and Schütze 2008, "Introduction to
Information Retrieval", section 8.3, with micro and macro averages as in section 13.6.

A number here is a ratio of sums over clients. The sums are kept by client, so that
:func:`pkgllm.evaluation.statistics.bootstrap_ratios` can resample clients.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pkgllm.evaluation.lists.lists import GeneratedList
from pkgllm.evaluation.statistics import ratio


@dataclass(frozen=True, slots=True)
class ClientRatios:
    """Numerators and denominators of some ratios, by client."""

    names: tuple[str, ...]
    """The ratio of each column."""
    sums: NDArray[np.float64]
    """Shape ``(clients, columns)``."""
    counts: NDArray[np.float64]
    """0 where a client adds nothing to the denominator. Shape ``(clients, columns)``."""

    def values(self) -> dict[str, float]:
        """Return the ratios by name, as :func:`pkgllm.evaluation.statistics.ratio` takes them."""
        ratios = ratio(self.sums.sum(axis=0), self.counts.sum(axis=0))
        return dict(zip(self.names, ratios.tolist(), strict=True))


def list_rates(lists: Sequence[GeneratedList]) -> ClientRatios:
    """Return what must be known before precision means anything, one list per client.

    * ``answer_rate``: clients with any line, over all clients;
    * ``validity_rate``: lines that name an item of the catalogue, over all lines;
    * ``novelty_rate``: those that name none of the client's visible graph, over lines that name an
      item;
    * ``mean_length``: items in the scored lists, over all clients.

    Raises:
        ValueError: If there is no list.

    Example:
        >>> from pkgllm.evaluation.lists.lists import list_of_items
        >>> answers = [
        ...     list_of_items(["7", "7", "3"], visible={"3"}, k=10, num_lines=4),
        ...     list_of_items([], visible=(), k=10),
        ... ]
        >>> for name, value in list_rates(answers).values().items():
        ...     print(f"{name} {value:.2f}")
        answer_rate 0.50
        validity_rate 0.75
        novelty_rate 0.67
        mean_length 0.50
    """
    if not lists:
        raise ValueError("at least one list must be given, got none")
    lines = [of_client.num_lines for of_client in lists]
    linked = [len(of_client.linked) for of_client in lists]
    ones = np.ones(len(lists))
    return ClientRatios(
        names=("answer_rate", "validity_rate", "novelty_rate", "mean_length"),
        sums=np.column_stack(
            [
                [float(of_client.answered) for of_client in lists],
                linked,
                [len(of_client.novel) for of_client in lists],
                [len(of_client.items) for of_client in lists],
            ]
        ).astype(np.float64),
        counts=np.column_stack([ones, lines, linked, ones]).astype(np.float64),
    )


@dataclass(frozen=True, slots=True)
class _Overlaps:
    """One number per client in each array, shape ``(clients,)``."""

    hits: NDArray[np.float64]
    lengths: NDArray[np.float64]
    golds: NDArray[np.float64]


def micro_list_metrics(
    lists: Sequence[Sequence[str]], gold: Sequence[Collection[str]], *, k: int
) -> ClientRatios:
    r"""Return precision, recall and F1 with all lists thrown together.

    .. math::

        P = \frac{\sum TP_c}{\sum |L_c|}, \quad R = \frac{\sum TP_c}{\sum |G_c|}, \quad
        F_1 = \frac{2 \sum TP_c}{\sum |L_c| + |G_c|}

    Args:
        lists: Ids of items, best first, one list per client; cut to ``k``. Any model's: of free
            text, of constrained decoding, or the best candidates of a ranker.
        gold: Ids of the held-out items, one collection per client.
        k: Longest list.

    Raises:
        ValueError: If ``k`` is not positive, there is no client or not one list for each, nothing
            is held out for one, or an item stands twice in a list.

    Example:
        >>> micro_list_metrics([["a", "b"], []], [["b", "c"], ["a", "d"]], k=2).values()
        {'precision@2': 0.5, 'recall@2': 0.25, 'f1@2': 0.3333333333333333}
    """
    overlaps = _overlaps(lists, gold, k)
    return ClientRatios(
        names=(f"precision@{k}", f"recall@{k}", f"f1@{k}"),
        sums=np.column_stack([overlaps.hits, overlaps.hits, 2 * overlaps.hits]),
        counts=np.column_stack(
            [overlaps.lengths, overlaps.golds, overlaps.lengths + overlaps.golds]
        ),
    )


def macro_list_metrics(
    lists: Sequence[Sequence[str]], gold: Sequence[Collection[str]], *, k: int
) -> ClientRatios:
    """Return the means over clients of each client's own precision, recall and F1.

    An empty list has a precision, recall and F1 of 0. F1 is the mean of the clients' F1, not the F1
    of the means. The extra ``precision_on_nonempty`` leaves clients with an empty list out. It
    flatters whoever answers seldom, and is for comparison with work that scores only what was
    answered.

    Args:
        lists: As for :func:`micro_list_metrics`.
        gold: As for :func:`micro_list_metrics`.
        k: Longest list.

    Raises:
        ValueError: As :func:`micro_list_metrics` does.

    Example:
        >>> macro_list_metrics([["a", "b"], []], [["b", "c"], ["a"]], k=2).values()
        {'precision@2': 0.25, 'recall@2': 0.25, 'f1@2': 0.25, 'precision_on_nonempty@2': 0.5}
    """
    overlaps = _overlaps(lists, gold, k)
    precision = ratio(overlaps.hits, overlaps.lengths)
    ones = np.ones(len(overlaps.hits))
    return ClientRatios(
        names=(f"precision@{k}", f"recall@{k}", f"f1@{k}", f"precision_on_nonempty@{k}"),
        sums=np.column_stack(
            [
                precision,
                overlaps.hits / overlaps.golds,
                2 * overlaps.hits / (overlaps.lengths + overlaps.golds),
                precision,
            ]
        ),
        counts=np.column_stack([ones, ones, ones, overlaps.lengths > 0]).astype(np.float64),
    )


def _overlaps(lists: Sequence[Sequence[str]], gold: Sequence[Collection[str]], k: int) -> _Overlaps:
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    if not lists or len(lists) != len(gold):
        raise ValueError(
            "there must be one list and one held-out set for each of at least one client, got "
            f"{len(lists)} and {len(gold)}"
        )
    for place, (items, wanted) in enumerate(zip(lists, gold, strict=True)):
        if not wanted:
            raise ValueError(f"client {place}: at least one item must be held out, got none")
        if len(set(items)) != len(items):
            raise ValueError(f"client {place}: the items of a list must be distinct, got {items}")
    hits = [len(set(items[:k]) & set(wanted)) for items, wanted in zip(lists, gold, strict=True)]
    return _Overlaps(
        hits=np.array(hits, dtype=np.float64),
        lengths=np.array([min(len(items), k) for items in lists], dtype=np.float64),
        golds=np.array([len(set(wanted)) for wanted in gold], dtype=np.float64),
    )
