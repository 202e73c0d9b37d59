"""One protocol for every model: rank each held-out like among all candidates, then sum up.

Top-level numbers are micro means (every query counts alike); macro means count every client alike.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pkgllm.corpora.catalogue import Catalogue
from pkgllm.errors import DataError, LeakError, PkgllmError
from pkgllm.evaluation.metrics import METRICS
from pkgllm.evaluation.ranks import Ranks, worst_ranks
from pkgllm.evaluation.scorer import (
    ClientQueries,
    Scorer,
    candidate_mask,
    gold_columns,
    rank_query,
)
from pkgllm.evaluation.statistics import RatioBootstrap, bootstrap_ratios
from pkgllm.randomness import stream

logger = logging.getLogger(__name__)

TOP_K = 10


@dataclass(frozen=True, slots=True)
class ClientRanks:
    """What one model did for one client."""

    ranks: Ranks
    top: tuple[str, ...]
    """Ids of the best candidates, best first, at most ``TOP_K``; empty after a failure."""
    failed: bool
    """True where the model gave no usable score, so that every query counts as a miss."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The ranks of every model for every query, and what follows from them."""

    queries: tuple[ClientQueries, ...]
    num_candidates: tuple[int, ...]
    """For each client, before the other held-out items are filtered."""
    ranked: Mapping[str, tuple[ClientRanks, ...]]
    """For each model, in the order given; one entry per client."""
    resamples: int
    seed: int

    def results(self) -> dict[str, Any]:
        """Return the summary, ready for JSON.

        ``models.<model>.<metric>`` holds ``value``, ``low`` and ``high``, and
        ``paired.<a>-<b>.<metric>`` holds ``difference`` (a minus b), ``low`` and ``high``. The
        interval is None where one client stands alone. The same two stand under ``macro`` (all
        clients alike), ``seen`` and ``unseen`` (clients in or out of training, micro). ``ties`` is
        the mean of pessimistic minus optimistic rank, ``failures`` the number of clients for whom
        a model gave no score.
        """
        everyone = np.arange(len(self.queries))
        seen = np.array([query.seen_in_training for query in self.queries])
        counted = self._counted(everyone)
        return {
            **counted,
            **self._tables(everyone, macro=False),
            "macro": self._tables(everyone, macro=True),
            "seen": self._group(everyone[seen]),
            "unseen": self._group(everyone[~seen]),
            "ties": {name: _mean_tie(ranked) for name, ranked in self.ranked.items()},
            "failures": {
                name: sum(client.failed for client in ranked)
                for name, ranked in self.ranked.items()
            },
        }

    def predictions(self) -> Iterator[dict[str, Any]]:
        """Yield one object per client: what was asked, and each model's ranks and best items."""
        for index, query in enumerate(self.queries):
            yield {
                "client": query.client,
                "seen_in_training": query.seen_in_training,
                "held_out": list(query.held_out),
                "candidates": self.num_candidates[index],
                "models": {
                    name: {
                        "ranks": ranked[index].ranks.realistic.tolist(),
                        "top": list(ranked[index].top),
                        "failed": ranked[index].failed,
                    }
                    for name, ranked in self.ranked.items()
                },
            }

    def _group(self, clients: NDArray[np.int64]) -> dict[str, Any]:
        if not len(clients):
            return {"queries": 0, "clients": 0, "models": {}, "paired": {}}
        return {**self._counted(clients), **self._tables(clients, macro=False)}

    def _counted(self, clients: NDArray[np.int64]) -> dict[str, int]:
        num_queries = sum(len(self.queries[client].held_out) for client in clients)
        return {"queries": num_queries, "clients": len(clients)}

    def _tables(self, clients: NDArray[np.int64], *, macro: bool) -> dict[str, Any]:
        counts = np.array([len(self.queries[client].held_out) for client in clients], dtype=float)
        sums = np.column_stack(
            [
                [metric(ranked[client].ranks.realistic).sum() for client in clients]
                for ranked in self.ranked.values()
                for metric in METRICS.values()
            ]
        )
        ratios = bootstrap_ratios(
            sums / counts[:, None] if macro else sums,
            np.ones_like(counts) if macro else counts,
            resamples=self.resamples,
            generator=stream(self.seed, "bootstrap"),
        )
        return _named(ratios, tuple(self.ranked))


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


def _named(ratios: RatioBootstrap, names: Sequence[str]) -> dict[str, Any]:
    """Lay out the columns (model by model, metric by metric) by their names."""
    metrics = list(METRICS)
    models: dict[str, Any] = {name: {} for name in names}
    paired: dict[str, Any] = {f"{first}-{second}": {} for first, second in combinations(names, 2)}
    for index, metric in enumerate(metrics):
        column = {name: len(metrics) * place + index for place, name in enumerate(names)}
        for name in names:
            found = ratios.estimate(column[name])
            models[name][metric] = {"value": found.value, "low": found.low, "high": found.high}
        for first, second in combinations(names, 2):
            found = ratios.difference(column[first], column[second])
            paired[f"{first}-{second}"][metric] = {
                "difference": found.value,
                "low": found.low,
                "high": found.high,
            }
    return {"models": models, "paired": paired}


def _mean_tie(ranked: Sequence[ClientRanks]) -> float:
    widths = [client.ranks.pessimistic - client.ranks.optimistic for client in ranked]
    return float(np.concatenate(widths).mean())
