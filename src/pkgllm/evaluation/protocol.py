"""One protocol for every model: rank each held-out like among all candidates."""

import logging
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from pkgllm.corpora.catalogue import Catalogue
from pkgllm.errors import DataError, LeakError, PkgllmError
from pkgllm.evaluation.ranks import worst_ranks
from pkgllm.evaluation.results import TOP_K, ClientRanks, Evaluation
from pkgllm.evaluation.scorer import (
    ClientQueries,
    Scorer,
    candidate_mask,
    gold_columns,
    rank_query,
)

logger = logging.getLogger(__name__)


def evaluate(
    scorers: Sequence[Scorer],
    queries: Sequence[ClientQueries],
    catalogue: Catalogue,
    *,
    resamples: int,
    seed: int,
    on_client: Callable[[str], None] | None = None,
) -> Evaluation:
    """Rank every held-out item with every model.

    A model that fails for a client (a :class:`PkgllmError`, or a candidate whose score is NaN) gets
    the worst rank for all of that client's queries, so that no model is measured on fewer.

    Args:
        scorers: The models, with distinct names; pairs are compared in this order.
        queries: One entry per client.
        catalogue: The items that compete.
        resamples: Bootstrap resamples behind each interval.
        seed: The run's seed.
        on_client: Called with the client's id when all models have ranked for it.

    Raises:
        DataError: If there is no client, or :func:`candidate_mask` refuses one; nothing has been
            scored then.
        LeakError: If a scorer finds one; it is never counted as a miss.
        ValueError: If a scorer's name or a client stands twice, or scores have a wrong shape.
    """
    names = [scorer.name for scorer in scorers]
    clients = [query.client for query in queries]
    for what, found in (("scorer", names), ("client", clients)):
        if len(set(found)) != len(found):
            raise ValueError(f"every {what} must stand once, got {sorted(found)}")
    if not names:
        raise ValueError("at least one scorer must be given, got none")
    if not clients:
        raise DataError("there is no client to evaluate: every one was left out")
    masks = [candidate_mask(catalogue, query) for query in queries]
    ranked: dict[str, list[ClientRanks]] = {name: [] for name in names}
    for query, mask in zip(queries, masks, strict=True):
        for scorer in scorers:
            ranked[scorer.name].append(_rank_client(scorer, query, catalogue, mask))
        if on_client is not None:
            on_client(query.client)
    return Evaluation(
        queries=tuple(queries),
        num_candidates=tuple(int(mask.sum()) for mask in masks),
        ranked={name: tuple(found) for name, found in ranked.items()},
        resamples=resamples,
        seed=seed,
    )


def _rank_client(
    scorer: Scorer, query: ClientQueries, catalogue: Catalogue, candidates: NDArray[np.bool_]
) -> ClientRanks:
    gold = gold_columns(catalogue, query)
    try:
        found = rank_query(scorer, query, candidates, gold, top_k=TOP_K)
    except LeakError:
        raise
    except PkgllmError as error:
        logger.warning(
            "%s: the %d queries of client %r count as misses: %s",
            scorer.name,
            len(query.held_out),
            query.client,
            error,
        )
        return ClientRanks(worst_ranks(candidates, gold), (), failed=True)
    top = tuple(catalogue.items[column].id for column in found.top)
    return ClientRanks(found.ranks, top, failed=False)
