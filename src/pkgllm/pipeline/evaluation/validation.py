"""Rank the validation part while a run trains; the test part is never asked for here."""

import numpy as np

from pkgllm.config import schema
from pkgllm.corpora.population import Population
from pkgllm.errors import ConfigError
from pkgllm.evaluation.metrics import hits_at_k, reciprocal_rank
from pkgllm.evaluation.protocol import evaluate
from pkgllm.evaluation.scorer import Scorer
from pkgllm.lm.adapter import AdapterState, carrying
from pkgllm.pipeline.build import audit_queries, make_queries
from pkgllm.pipeline.evaluation.scorers import Ranked, language_models


class Validation:
    """Ranks the ``validation`` part with an adapter on the way.

    Args:
        config: The run's configuration.
        ranked: The policy, and what it is asked with.
        population: All clients.

    Raises:
        ConfigError: If no client that could be ranked has a validation fact.
        LeakError: If a prompt holds what it asks for.
        DataError: If a query cannot be asked.
        ModelError: If the base model cannot be ranked, or memory does not suffice.
    """

    def __init__(self, config: schema.Experiment, ranked: Ranked, population: Population) -> None:
        changed = {
            "part": "validation",
            "max_clients": config.observation.max_clients,
            "baselines": (),
        }
        self._config = config.model_copy(
            update={"evaluation": config.evaluation.model_copy(update=changed)}
        )
        self._ranked = ranked
        self._population = population
        self._queries = make_queries(self._config, population)
        if not self._queries:
            raise ConfigError(
                "observation.evaluate_every needs validation facts, and split.validation_share "
                f"{config.split.validation_share:g} rounds to none for every client; raise it"
            )
        catalogue = population.corpus.catalogue
        audit_queries(self._queries, ranked.writer, catalogue, "validation")
        self._scorer()

    def __call__(self, adapter: AdapterState) -> dict[str, float]:
        """Return clients, queries, failures, and micro Hits@10 and MRR with an adapter.

        The policy carries the adapter that it had before again afterwards.
        """
        with carrying(self._ranked.policy, adapter):
            scorer = self._scorer()
            evaluation = evaluate(
                [scorer],
                self._queries,
                self._population.corpus.catalogue,
                resamples=self._config.evaluation.bootstrap_resamples,
                seed=self._config.seed,
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

    def _scorer(self) -> Scorer:
        # Made anew each time, so that its memory is free while clients train.
        return language_models(self._config, self._ranked, self._population)[0]


def check_observation(
    config: schema.Experiment, ranked: Ranked, population: Population
) -> Validation | None:
    """Return what ranks the validation part, if that is wanted; fail before any training.

    Raises:
        PkgllmError: As :class:`Validation` does.
    """
    if not config.observation.evaluate_every:
        return None
    return Validation(config, ranked, population)
