"""The rank of a held-out item among all candidates, with ties treated openly.

Pure numpy. The three kinds of rank follow PyKEEN's naming (Berrendorf et al. 2020,
arXiv:2002.06914).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Ranks:
    """Ranks of one client's held-out items, from 1, each among the candidates left by filtering.

    Every array has shape ``(held_out,)``.
    """

    optimistic: NDArray[np.int64]
    """Candidates with a higher score, plus one: the item stands first among its equals."""
    pessimistic: NDArray[np.int64]
    """Candidates with at least the item's score, itself included: it stands last among them."""

    @property
    def realistic(self) -> NDArray[np.float64]:
        """Mean of both: the expected rank when equals are put in random order."""
        return (self.optimistic + self.pessimistic) / 2


def rank_gold(
    scores: NDArray[np.float64],
    candidates: NDArray[np.bool_],
    gold: NDArray[np.int64],
    *,
    tolerance: float = 0.0,
) -> Ranks:
    """Rank each gold column among the candidates, with the other gold columns filtered out.

    Args:
        scores: Higher is better. Shape ``(catalogue,)``.
        candidates: True where a column competes. Shape ``(catalogue,)``.
        gold: Columns of the held-out items, distinct, all of them candidates. Shape
            ``(held_out,)``.
        tolerance: Scores that differ from a gold column's by no more than this count as equal to
            it.

    Raises:
        ValueError: If the shapes differ, a gold column stands twice or is no candidate, or a
            candidate's score is NaN.

    Example:
        >>> scores = np.array([0.9, 0.5, 0.5, 0.1])
        >>> ranks = rank_gold(scores, np.ones(4, dtype=bool), np.array([1]))
        >>> ranks.optimistic.tolist(), ranks.realistic.tolist(), ranks.pessimistic.tolist()
        ([2], [2.5], [3])
    """
    if scores.shape != candidates.shape or scores.ndim != 1:
        raise ValueError(
            f"scores and candidates must have one shape (catalogue,), got {scores.shape} "
            f"and {candidates.shape}"
        )
    if len(np.unique(gold)) != len(gold):
        raise ValueError(f"gold columns must be distinct, got {gold.tolist()}")
    if not candidates[gold].all():
        raise ValueError(
            f"gold columns must be candidates, got {gold[~candidates[gold]].tolist()} that are not"
        )
    if np.isnan(scores[candidates]).any():
        num_nan = int(np.isnan(scores[candidates]).sum())
        raise ValueError(f"scores of candidates must be numbers, got {num_nan} NaN")
    others = candidates.copy()
    others[gold] = False
    ascending = np.sort(scores[others])
    not_higher = np.searchsorted(ascending, scores[gold] + tolerance, side="right")
    lower = np.searchsorted(ascending, scores[gold] - tolerance, side="left")
    return Ranks(
        optimistic=(len(ascending) - not_higher + 1).astype(np.int64),
        pessimistic=(len(ascending) - lower + 1).astype(np.int64),
    )


def worst_ranks(candidates: NDArray[np.bool_], gold: NDArray[np.int64]) -> Ranks:
    """Return the ranks of gold columns that stand behind every other candidate.

    Example:
        >>> worst_ranks(np.array([True, True, True, False]), np.array([0, 2])).realistic.tolist()
        [2.0, 2.0]
    """
    last = np.full(len(gold), int(candidates.sum()) - len(gold) + 1, dtype=np.int64)
    return Ranks(optimistic=last, pessimistic=last)


def best_columns(
    scores: NDArray[np.float64], candidates: NDArray[np.bool_], k: int
) -> NDArray[np.int64]:
    """Return the columns of the ``k`` best candidates, best first; equals in column order."""
    columns = np.flatnonzero(candidates)
    order = np.argsort(-scores[columns], kind="stable")[:k]
    return columns[order].astype(np.int64)
