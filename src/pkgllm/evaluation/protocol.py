"""One protocol for every model: rank each held-out like among all candidates."""

import logging
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from pkgllm.corpora.catalogue import Catalogue
from pkgllm.errors import DataError, PkgllmError
from pkgllm.evaluation.ranks import worst_ranks
from pkgllm.evaluation.results import TOP_K, ClientRanks, EvaluationResults
from pkgllm.evaluation.scorer import (
    ClientQueries,
    RankedClient,
    Ranker,
    Scorer,
    candidate_mask,
    gold_columns,
    rank_queries,
)

logger = logging.getLogger(__name__)


def evaluate(
    scorers: Sequence[Scorer],
    queries: Sequence[ClientQueries],
    catalogue: Catalogue,
    *,
    resamples: int,
    seed: int,
    training_likes: NDArray[np.float64] | None = None,
    on_client: Callable[[str], None] | None = None,
) -> EvaluationResults:
    """Rank every held-out item with every model.

    A model that fails for a client (a :class:`PkgllmError`, or a candidate whose score is NaN) gets
    the worst rank for all of that client's queries, so that no model is measured on fewer.

    Args:
        scorers: The models, with distinct names; pairs are compared in this order.
        queries: One entry per client.
        catalogue: The items that compete.
        resamples: Bootstrap resamples behind each interval.
        seed: The run's seed.
        training_likes: How many training clients like each item, in column order, for what is
            measured of lists. Shape ``(len(catalogue),)``.
        on_client: Called with the client's id when all models have ranked for it.

    Raises:
        DataError: If there is no client, or :func:`candidate_mask` refuses one; nothing has been
            scored then.
        LeakError: If a scorer finds one; it is never counted as a miss.
        ValueError: If a scorer's name or a client stands twice, or scores have a wrong shape.
    """
    names = [scorer.name for scorer in scorers]
    clients = [query.client for query in queries]
    for what, given in (("scorer", names), ("client", clients)):
        if len(set(given)) != len(given):
            raise ValueError(f"every {what} must stand once, got {sorted(given)}")
    if not names:
        raise ValueError("at least one scorer must be given, got none")
    if not clients:
        raise DataError("there is no client to evaluate: every one was left out")
    masks = np.stack([candidate_mask(catalogue, query) for query in queries])
    gold = [gold_columns(catalogue, query) for query in queries]
    at_once = max(s.clients_at_once if isinstance(s, Ranker) else 1 for s in scorers)
    ranked: dict[str, list[ClientRanks]] = {name: [] for name in names}
    for start in range(0, len(queries), at_once):
        part = slice(start, start + at_once)
        for scorer in scorers:
            answers = rank_queries(scorer, queries[part], masks[part], gold[part], top_k=TOP_K)
            if len(answers) != len(queries[part]):
                raise ValueError(
                    f"{scorer.name!r} must answer for {len(queries[part])} clients, got "
                    f"{len(answers)} answers"
                )
            ranked[scorer.name] += [
                _client_ranks(scorer.name, queries[at], catalogue, masks[at], gold[at], answer)
                for at, answer in enumerate(answers, start)
            ]
        if on_client is not None:
            for query in queries[part]:
                on_client(query.client)
    return EvaluationResults(
        queries=tuple(queries),
        num_candidates=tuple(int(mask.sum()) for mask in masks),
        ranked={name: tuple(of_model) for name, of_model in ranked.items()},
        catalogue=catalogue,
        training_likes=training_likes,
        resamples=resamples,
        seed=seed,
    )


def _client_ranks(
    name: str,
    query: ClientQueries,
    catalogue: Catalogue,
    candidates: NDArray[np.bool_],
    gold: NDArray[np.int64],
    answer: RankedClient | PkgllmError,
) -> ClientRanks:
    if isinstance(answer, PkgllmError):
        logger.warning(
            "%s: the %d queries of client %r count as misses: %s",
            name,
            len(query.held_out),
            query.client,
            answer,
        )
        return ClientRanks(worst_ranks(candidates, gold), (), failed=True)
    top = tuple(catalogue.items[column].id for column in answer.top)
    return ClientRanks(answer.ranks, top, failed=False)
