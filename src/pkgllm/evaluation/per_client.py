"""A scorer whose model is another one for each client."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from pkgllm.errors import PkgllmError
from pkgllm.evaluation.scorer import ClientQueries, RankedClient, Scorer, rank_queries


class PerClientScorer:
    """Makes a client's own model ready before another scorer is asked for that client."""

    def __init__(self, scorer: Scorer, select: Callable[[str], None]) -> None:
        self.name = scorer.name
        self._scorer = scorer
        self._select = select

    def scores(self, queries: Sequence[ClientQueries]) -> NDArray[np.float64]:
        """Score the catalogue for each client with its own model."""
        rows = [self._scorer.scores([])]
        for query in queries:
            self._select(query.client)
            rows.append(self._scorer.scores([query]))
        return np.concatenate(rows)

    @property
    def clients_at_once(self) -> int:
        """One, because one model is ready at a time."""
        return 1

    def rank(
        self,
        queries: Sequence[ClientQueries],
        candidates: NDArray[np.bool_],
        gold: Sequence[NDArray[np.int64]],
        *,
        top_k: int,
    ) -> list[RankedClient | PkgllmError]:
        """Rank each client's held-out items with its own model."""
        answers: list[RankedClient | PkgllmError] = []
        for place, query in enumerate(queries):
            self._select(query.client)
            part = slice(place, place + 1)
            answers += rank_queries(
                self._scorer, queries[part], candidates[part], gold[part], top_k=top_k
            )
        return answers
