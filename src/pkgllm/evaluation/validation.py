"""Rank held-out facts with an adapter while it is trained; the test part is never asked for."""

from collections.abc import Callable, Sequence

import numpy as np
from peft import PeftModel

from pkgllm.corpora.catalogue import Catalogue
from pkgllm.evaluation.metrics import hits_at_k, reciprocal_rank
from pkgllm.evaluation.protocol import evaluate
from pkgllm.evaluation.scorer import ClientQueries, Scorer
from pkgllm.lm.adapter import AdapterState, carrying


class Validation:
    """Ranks audited queries with one adapter after the other.

    Args:
        make_scorer: Makes a scorer of the policy; called here as well, so that a policy that cannot
            be ranked fails before it is trained.
        policy: Carries the adapters.
        queries: Of the validation part.
        catalogue: The items.
        resamples: Of the bootstrap.
        seed: The run's seed.
    """

    def __init__(
        self,
        make_scorer: Callable[[], Scorer],
        policy: PeftModel,
        queries: Sequence[ClientQueries],
        catalogue: Catalogue,
        *,
        resamples: int,
        seed: int,
    ) -> None:
        make_scorer()
        self._make_scorer = make_scorer
        self._policy = policy
        self._queries = queries
        self._catalogue = catalogue
        self._resamples = resamples
        self._seed = seed

    def __call__(self, adapter: AdapterState) -> dict[str, float]:
        """Return clients, queries, failures, and micro Hits@10 and MRR with an adapter.

        The policy carries the adapter that it had before again afterwards.
        """
        with carrying(self._policy, adapter):
            # Made anew each time, so that its memory is free while clients train.
            scorer = self._make_scorer()
            evaluation = evaluate(
                [scorer],
                self._queries,
                self._catalogue,
                resamples=self._resamples,
                seed=self._seed,
            )
        clients = evaluation.ranked[scorer.name]
        ranks = np.concatenate([client.ranks.realistic for client in clients])
        return {
            "clients": len(clients),
            "queries": len(ranks),
            "failures": sum(client.failed for client in clients),
            "hits@10": float(hits_at_k(ranks, k=10).mean()),
            "mrr": float(reciprocal_rank(ranks).mean()),
        }
