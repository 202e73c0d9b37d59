"""From sections of the configuration to an embedding, its graph, and what ranks with it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from pkgllm.config import schema
from pkgllm.corpora.population import Population
from pkgllm.evaluation.scorer import ClientQueries, Scorer, candidate_mask
from pkgllm.kge.federated_embeddings import FederatedEmbeddings, check_federation
from pkgllm.kge.federated_scorer import FederatedScorer
from pkgllm.kge.preference_graph import PreferenceGraph, make_preference_graph
from pkgllm.kge.pykeen_door import Model
from pkgllm.kge.scorer import EmbeddingScorer
from pkgllm.kge.settings import EmbeddingFederation
from pkgllm.lm.base_model import find_device
from pkgllm.pipeline.build import make_queries


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddingPlan:
    """What a configuration trains, on what and where, checked before any training."""

    config: schema.EmbeddingExperiment
    graph: PreferenceGraph
    device: torch.device
    federation: EmbeddingFederation | None
    """How it is trained over clients; None for one graph in one place."""

    @property
    def num_rounds(self) -> dict[str, int]:
        """Rounds of each stage, in order; none where it is not trained over clients."""
        if self.federation is None:
            return {}
        schedules = self.config.embedding.schedules
        return {name: self.federation.num_rounds(each) for name, each in schedules.items()}


Trained = Model | FederatedEmbeddings
"""A trained embedding: of one graph in one place, or of tables over clients."""


def plan_embedding(config: schema.EmbeddingExperiment, population: Population) -> EmbeddingPlan:
    """Return what is trained, and on which graph.

    Raises:
        DataError: If no training client likes anything.
        ModelError: If the device is not there.
    """
    graph = make_preference_graph(
        population.corpus.catalogue, [split.train_graph for split in population.in_training]
    )
    device = find_device(config.training.device, key="training.device")
    federation = config.mode if isinstance(config.mode, EmbeddingFederation) else None
    if federation is not None:
        check_federation(config.embedding, graph, federation)
    return EmbeddingPlan(config, graph, device, federation)


def embedding_queries(
    config: schema.EmbeddingExperiment, population: Population, *, everybody: bool = False
) -> tuple[ClientQueries, ...]:
    """Return what is asked of each client, audited.

    What a client trains on stands in its visible graph, so no answer is in the training graph.

    Raises:
        DataError: If a query cannot be asked: :func:`candidate_mask` says when.
    """
    queries = make_queries(config, population, everybody=everybody)
    for query in queries:
        candidate_mask(population.corpus.catalogue, query)
    return queries


def make_scorer(plan: EmbeddingPlan, trained: Trained, population: Population) -> Scorer:
    """Return what ranks with a trained embedding.

    Raises:
        DataError: If an item to rank has no vector.
    """
    settings, seed = plan.config.fold_in, plan.config.seed
    catalogue = population.corpus.catalogue
    if isinstance(trained, FederatedEmbeddings):
        return FederatedScorer("tuned", trained, settings=settings, seed=seed, catalogue=catalogue)
    return EmbeddingScorer(
        "tuned", trained, plan.graph, settings=settings, seed=seed, catalogue=catalogue
    )


def training_notes(plan: EmbeddingPlan, trained: Trained) -> Iterator[str]:
    """Yield what a reader must know of what an embedding was trained on, and by whom."""
    triples = plan.graph.triples
    yield (
        f"Embedding: tuned on {len(triples.triples)} triples of {len(plan.graph.persons)} training "
        f"clients and the catalogue's public facts; {triples.num_entities} entities, "
        f"{triples.num_relations} relations."
    )
    if not isinstance(trained, FederatedEmbeddings):
        return
    federation = trained.federation
    for stage, participation in trained.participation.items():
        done = participation.summary()
        yield (
            f"Federation: stage {stage}, exchange {federation.exchange}, "
            f"{len(participation.rounds)} clients in cohorts of {federation.cohort_size}; "
            f"{participation.coverage:.0%} took part, in {done['mean_rounds']:.1f} rounds on "
            f"average ({done['fewest_rounds']} to {done['most_rounds']})."
        )


def fold_in_note(plan: EmbeddingPlan, queries: Sequence[ClientQueries]) -> str:
    """Return a note on how the persons that are asked get their vectors."""
    unknown = sum(not len(plan.graph.facts(query.graph)) for query in queries)
    are = "are the mean of the training clients" if plan.federation is None else "stay at the start"
    return (
        f"Persons: fit to their visible facts in {plan.config.fold_in.steps} steps, all else "
        f"frozen; {unknown} of {len(queries)} have no visible fact that the embedding knows, and "
        f"{are}."
    )
