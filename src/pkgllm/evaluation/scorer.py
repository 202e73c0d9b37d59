"""What every ranked model implements, how it is asked, and the one rule for which items compete."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from pkgllm.corpora.catalogue import Catalogue
from pkgllm.errors import DataError, LeakError, PkgllmError
from pkgllm.evaluation.ranks import Ranks, best_columns, rank_gold
from pkgllm.graph.personal_graph import PersonalGraph


@dataclass(frozen=True, slots=True)
class ClientQueries:
    """The queries (client, liked, ?) of one client: one for each held-out item, one context."""

    client: str
    seen_in_training: bool
    graph: PersonalGraph
    """The visible facts, all of them strictly earlier than the held-out ones."""
    held_out: tuple[str, ...]
    """Ids of the liked items that are asked for."""


class Scorer(Protocol):
    """A model that can be ranked."""

    @property
    def name(self) -> str:
        """The model's name in results."""
        ...

    def scores(self, queries: Sequence[ClientQueries]) -> NDArray[np.float64]:
        """Score every item of the catalogue for every client; higher is better.

        Returns:
            Shape ``(len(queries), len(catalogue))``. Columns that are no candidates are ignored.
        """
        ...


@dataclass(frozen=True, slots=True)
class RankedClient:
    """What one model makes of one client's queries."""

    ranks: Ranks
    top: NDArray[np.int64]
    """Columns of the best candidates, best first."""
    num_fed: int = 0
    """Nodes of a catalogue trie that went through the model; 0 where there is none."""


@runtime_checkable
class Ranker(Protocol):
    """A scorer that can rank without scoring every item."""

    @property
    def clients_at_once(self) -> int:
        """Clients that are best ranked together."""
        ...

    def rank(
        self,
        queries: Sequence[ClientQueries],
        candidates: NDArray[np.bool_],
        gold: Sequence[NDArray[np.int64]],
        *,
        top_k: int,
    ) -> Sequence[RankedClient | PkgllmError]:
        """Rank the gold columns as :func:`rank_gold` does, and find the ``top_k`` best candidates.

        Both are exact. Arguments and result as for :func:`rank_queries`.
        """
        ...


def rank_queries(
    scorer: Scorer,
    queries: Sequence[ClientQueries],
    candidates: NDArray[np.bool_],
    gold: Sequence[NDArray[np.int64]],
    *,
    top_k: int,
) -> Sequence[RankedClient | PkgllmError]:
    """Rank some clients' held-out items, by the scorer's own shortcut where it has one.

    Args:
        scorer: The model.
        queries: What is asked.
        candidates: True where a column competes. Shape ``(len(queries), len(catalogue))``.
        gold: For each client, columns of its held-out items, all of them candidates.
        top_k: Length of the list of best candidates.

    Returns:
        For each client what the model makes of it, or why it gave no usable score.

    Raises:
        LeakError: If the scorer finds one.
        ValueError: If the scores have a wrong shape, or :func:`rank_gold` refuses the columns.
    """
    if isinstance(scorer, Ranker):
        return scorer.rank(queries, candidates, gold, top_k=top_k)
    return [
        _rank_by_scores(scorer, query, mask, columns, top_k)
        for query, mask, columns in zip(queries, candidates, gold, strict=True)
    ]


def _rank_by_scores(
    scorer: Scorer,
    query: ClientQueries,
    candidates: NDArray[np.bool_],
    gold: NDArray[np.int64],
    top_k: int,
) -> RankedClient | PkgllmError:
    try:
        scores = scorer.scores([query])
    except LeakError:
        raise
    except PkgllmError as error:
        return error
    if scores.shape != (1, len(candidates)):
        raise ValueError(
            f"scores of {scorer.name!r} must have shape {(1, len(candidates))}, got {scores.shape}"
        )
    return rank_scores(scores[0], candidates, gold, top_k=top_k)


def rank_scores(
    scores: NDArray[np.float64],
    candidates: NDArray[np.bool_],
    gold: NDArray[np.int64],
    *,
    top_k: int,
) -> RankedClient | DataError:
    """Rank one client's held-out items by the scores of the whole catalogue.

    Args:
        scores: Shape ``(catalogue,)``.
        candidates: True where a column competes, of the same shape.
        gold: Columns of the held-out items, all of them candidates.
        top_k: Length of the list of best candidates.

    Returns:
        The ranks, or an error where a candidate's score is NaN.

    Raises:
        ValueError: If :func:`rank_gold` refuses the columns.
    """
    if np.isnan(scores[candidates]).any():
        return DataError("a candidate's score is NaN")
    return RankedClient(
        ranks=rank_gold(scores, candidates, gold), top=best_columns(scores, candidates, top_k)
    )


def candidate_mask(catalogue: Catalogue, queries: ClientQueries) -> NDArray[np.bool_]:
    """Return which columns compete: the whole catalogue minus what the visible graph speaks of.

    Returns:
        Shape ``(len(catalogue),)``; every held-out item is a candidate.

    Raises:
        DataError: If nothing is held out or left to recommend, or a held-out item stands twice, is
            already visible, or is not in the catalogue.
    """
    where = f"client {queries.client!r}"
    visible = queries.graph.tails
    if not queries.held_out:
        raise DataError(f"{where}: at least one liked item must be held out, got none")
    if len(set(queries.held_out)) != len(queries.held_out):
        raise DataError(f"{where}: held-out items must be distinct, got {queries.held_out}")
    for item in queries.held_out:
        if item not in catalogue:
            raise DataError(
                f"{where}: the held-out item {item!r} is not in the catalogue of "
                f"{len(catalogue)} items"
            )
    mask = np.ones(len(catalogue), dtype=bool)
    mask[[catalogue.index_by_id[item] for item in visible if item in catalogue]] = False
    if not mask.any():
        raise DataError(
            f"{where}: the visible graph holds the whole catalogue of {len(catalogue)} items, so "
            "there is nothing left to recommend"
        )
    for item in queries.held_out:
        if item in visible:
            raise DataError(
                f"{where}: the held-out item {item!r} stands in the visible graph, so the answer "
                "is known; split the graph by time again"
            )
    return mask


def gold_columns(catalogue: Catalogue, queries: ClientQueries) -> NDArray[np.int64]:
    """Return the catalogue columns of the held-out items, shape ``(held_out,)``."""
    return np.array([catalogue.index_by_id[item] for item in queries.held_out], dtype=np.int64)
