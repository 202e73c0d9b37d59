"""The results of an evaluation: every model's ranks for every query, and what follows from them.

Top-level numbers are micro means (every query counts alike); macro means count every client alike.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pkgllm.corpora.catalogue import Catalogue
from pkgllm.evaluation.beyond_accuracy import ListMeasures
from pkgllm.evaluation.metrics import METRICS
from pkgllm.evaluation.ranks import Ranks
from pkgllm.evaluation.scorer import ClientQueries
from pkgllm.evaluation.statistics import (
    RatioBootstrap,
    bootstrap_ratios,
    ratio,
    spread_over_clients,
)
from pkgllm.randomness import stream

TOP_K = 10
"""Length of the lists of best candidates."""
DECILE_METRICS = ("hits@10", "mrr")
"""Metrics whose distribution over clients is reported."""


@dataclass(frozen=True, slots=True)
class ClientRanks:
    """What one model did for one client."""

    ranks: Ranks
    top: tuple[str, ...]
    """Ids of the best candidates, best first, at most ``TOP_K``; empty after a failure."""
    failed: bool
    """True where the model gave no usable score, so that every query counts as a miss."""


@dataclass(frozen=True, slots=True)
class EvaluationResults:
    """The ranks of every model for every query, and what follows from them."""

    queries: tuple[ClientQueries, ...]
    num_candidates: tuple[int, ...]
    """For each client, before the other held-out items are filtered."""
    ranked: Mapping[str, tuple[ClientRanks, ...]]
    """For each model, in the order given; one entry per client."""
    catalogue: Catalogue
    training_likes: NDArray[np.float64] | None
    """How many training clients like each item, in column order, where that is known."""
    resamples: int
    seed: int

    def results(self) -> dict[str, Any]:
        """Return the summary, ready for JSON.

        ``models.<model>.<metric>`` holds ``value``, ``low`` and ``high``, and
        ``paired.<a>-<b>.<metric>`` holds ``difference`` (a minus b), ``low`` and ``high``. The
        interval is None where one client stands alone. The same two stand under ``macro`` (all
        clients alike: the mean over clients of each client's own value), ``seen`` and ``unseen``
        (clients in or out of training, micro). ``deciles.<model>.<metric>`` holds the
        :class:`Spread` of the clients' own values, and ``beyond_accuracy.<model>`` the measures of
        :class:`BeyondAccuracy`, over all clients' lists. ``ties`` is the mean of pessimistic minus
        optimistic rank, ``failures`` the number of clients for whom a model gave no score.
        """
        everyone = np.arange(len(self.queries))
        seen = np.array([query.seen_in_training for query in self.queries])
        sums, counts = self._client_terms()
        own = ratio(sums, counts)
        return {
            **self._counted(everyone),
            **self._tables(sums, counts),
            "macro": self._tables(own, np.ones(len(own))),
            "seen": self._group(sums, counts, everyone[seen]),
            "unseen": self._group(sums, counts, everyone[~seen]),
            "deciles": self._deciles(own),
            "beyond_accuracy": self._beyond_accuracy(),
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

    def _client_terms(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Sum both terms of every metric over each client's queries.

        Returns:
            Twice the shape ``(clients, columns)``, the columns model by model, metric by metric.
        """
        sizes = np.array([len(query.held_out) for query in self.queries])
        starts = np.cumsum(sizes) - sizes
        # An item is ranked among the candidates without the client's other held-out ones.
        num_ranked = np.repeat(np.array(self.num_candidates) - sizes + 1, sizes)
        terms = [
            metric(np.concatenate([client.ranks.realistic for client in ranked]), num_ranked)
            for ranked in self.ranked.values()
            for metric in METRICS.values()
        ]
        return (
            np.add.reduceat(np.column_stack([term.upper for term in terms]), starts),
            np.add.reduceat(np.column_stack([term.lower for term in terms]), starts),
        )

    def _group(
        self, sums: NDArray[np.float64], counts: NDArray[np.float64], clients: NDArray[np.int64]
    ) -> dict[str, Any]:
        if not len(clients):
            return {"queries": 0, "clients": 0, "models": {}, "paired": {}}
        return {**self._counted(clients), **self._tables(sums[clients], counts[clients])}

    def _counted(self, clients: NDArray[np.int64]) -> dict[str, int]:
        num_queries = sum(len(self.queries[client].held_out) for client in clients)
        return {"queries": num_queries, "clients": len(clients)}

    def _tables(self, sums: NDArray[np.float64], counts: NDArray[np.float64]) -> dict[str, Any]:
        ratios = bootstrap_ratios(
            sums, counts, resamples=self.resamples, generator=stream(self.seed, "bootstrap")
        )
        return _named(ratios, tuple(self.ranked))

    def _deciles(self, own: NDArray[np.float64]) -> dict[str, Any]:
        metrics = list(METRICS)
        return {
            name: {
                metric: asdict(
                    spread_over_clients(own[:, len(metrics) * place + metrics.index(metric)])
                )
                for metric in DECILE_METRICS
            }
            for place, name in enumerate(self.ranked)
        }

    def _beyond_accuracy(self) -> dict[str, Any]:
        profiles = [
            [fact.tail for fact in query.graph.with_relation("liked")] for query in self.queries
        ]
        measures = ListMeasures(profiles, self.catalogue, self.training_likes)
        return {
            name: asdict(measures.of([client.top for client in ranked]))
            for name, ranked in self.ranked.items()
        }


def _named(ratios: RatioBootstrap, names: Sequence[str]) -> dict[str, Any]:
    """Lay out the columns (model by model, metric by metric) by their names."""
    metrics = list(METRICS)
    models: dict[str, Any] = {name: {} for name in names}
    paired: dict[str, Any] = {f"{first}-{second}": {} for first, second in combinations(names, 2)}
    for index, metric in enumerate(metrics):
        column = {name: len(metrics) * place + index for place, name in enumerate(names)}
        for name in names:
            estimate = ratios.estimate(column[name])
            models[name][metric] = {
                "value": estimate.value,
                "low": estimate.low,
                "high": estimate.high,
            }
        for first, second in combinations(names, 2):
            estimate = ratios.difference(column[first], column[second])
            paired[f"{first}-{second}"][metric] = {
                "difference": estimate.value,
                "low": estimate.low,
                "high": estimate.high,
            }
    return {"models": models, "paired": paired}


def _mean_tie(ranked: Sequence[ClientRanks]) -> float:
    widths = [client.ranks.pessimistic - client.ranks.optimistic for client in ranked]
    return float(np.concatenate(widths).mean())
