"""What an evaluation found: every model's ranks for every query, and what follows from them.

Top-level numbers are micro means (every query counts alike); macro means count every client alike.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pkgllm.evaluation.metrics import METRICS
from pkgllm.evaluation.ranks import Ranks
from pkgllm.evaluation.scorer import ClientQueries
from pkgllm.evaluation.statistics import RatioBootstrap, bootstrap_ratios
from pkgllm.randomness import stream

TOP_K = 10
"""Length of the lists of best candidates."""


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
