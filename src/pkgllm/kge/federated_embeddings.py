"""Embeddings trained over clients: FedE, FedR, the mean of whole tables, or each client alone.

Chen et al. 2021, "FedE: Embedding knowledge graphs in federated setting" (arXiv:2010.12882) and
Zhang et al. 2022, "Efficient federated learning on knowledge graphs via privacy-preserving relation
embedding aggregation" (FedR, arXiv:2203.09553), where a client holds one person's facts. What
leaves a client is in :mod:`pkgllm.kge.exchange`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import fmean

from pkgllm.errors import DataError, ModelError
from pkgllm.kge.clients import StagePlan
from pkgllm.kge.embedding import Embedding
from pkgllm.kge.federated_stage import FederatedSetup, FederatedStage, run_stage
from pkgllm.kge.local_graphs import LocalGraphs, split_by_client
from pkgllm.kge.preference_graph import PreferenceGraph
from pkgllm.kge.pykeen_door import Model
from pkgllm.kge.settings import EmbeddingFederation


@dataclass(frozen=True, slots=True)
class EmbeddingParticipation:
    """How many rounds each training client took part in.

    Example:
        >>> EmbeddingParticipation({"a": 2, "b": 0, "c": 1, "d": 1}).summary()
        {'coverage': 0.75, 'mean_rounds': 1.0, 'fewest_rounds': 0, 'most_rounds': 2}
    """

    rounds: Mapping[str, int]
    """Of each client, 0 included; at least one client."""

    @property
    def coverage(self) -> float:
        """Share of the clients that ever took part."""
        return fmean(count > 0 for count in self.rounds.values())

    def summary(self) -> dict[str, float | int]:
        """Return the coverage, and the mean, fewest and most rounds of a client."""
        counts = list(self.rounds.values())
        return {
            "coverage": self.coverage,
            "mean_rounds": fmean(counts),
            "fewest_rounds": min(counts),
            "most_rounds": max(counts),
        }


@dataclass(frozen=True, slots=True, eq=False)
class FederatedEmbeddings:
    """Embeddings that were trained over clients: the tables of the server and of each client."""

    choice: Embedding
    federation: EmbeddingFederation
    graphs: LocalGraphs
    stages: Mapping[str, FederatedStage]
    """In order; the last one's models score."""

    @property
    def participation(self) -> dict[str, EmbeddingParticipation]:
        """Rounds of each client, for each stage."""
        return {
            name: EmbeddingParticipation(
                {client: len(each) for client, each in stage.rounds.items()}
            )
            for name, stage in self.stages.items()
        }

    @property
    def alike(self) -> bool:
        """Whether the models of training clients differ in nothing but the person's row."""
        return self.federation.exchange == "fedavg" and self.choice.alike_over_clients

    def took_part(self, client: str) -> bool:
        """Return whether a client took part in any round of any stage."""
        return any(stage.rounds[client] for stage in self.stages.values())

    def local_model(self, client: str | None) -> Model:
        """Return the model that a client has at the end, in evaluation mode.

        Its entities are numbered as :class:`LocalGraphs` says; the person is 0. It holds the
        server's tables of what is exchanged, and the client's own of what is not. A client that
        never took part has the tables of a newcomer (None): where items are exchanged, the first
        values of all else; where they are not, tables trained alone on the public facts, for as
        many rounds as a client took part in on average. The next call changes the model.
        """
        *_, last = self.stages.values()
        return last.local_model(client)


def train_federated_embeddings(
    choice: Embedding,
    graph: PreferenceGraph,
    federation: EmbeddingFederation,
    setup: FederatedSetup,
) -> FederatedEmbeddings:
    """Train a model over the clients of a graph, from the newest checkpoints where there are any.

    Each client holds its own facts and the public facts of all items, and trains by PyKEEN's loop;
    each stage of the model has as many rounds as its epochs make.
    A run that was killed at any instant and is started again ends with the same bytes as one that
    was not, on ``cpu``. Where training is complete already, its result is loaded.

    KBGAT's three stages are federated one after the other, each with rounds of its own. Between
    them every client encodes its own graph by itself, so ConvKB's vectors of items differ among
    clients, and what ConvKB's rounds exchange is its filters.

    Raises:
        DataError: If there are fewer clients than a cohort needs, or no public facts.
        ModelError: If the model cannot be federated, a loss is not finite, or the device cannot be
            used.
        StoppedError: If a stop was asked for.
        RunError: If checkpoints are of another training, or cannot be read or written.
    """
    check_federation(choice, graph, federation)
    graphs = split_by_client(graph)
    done: dict[str, FederatedStage] = {}

    for name, schedule in choice.schedules.items():
        before = list(done.values())[-1] if done else None
        plan = StagePlan(
            name=name,
            schedule=schedule,
            build=_builder(choice, name, before, graphs, setup.seed),
            alike=before is None,
            identity=f"{choice} {graph.triples.digest()} {list(graph.persons)}",
        )
        done[name] = run_stage(plan, graphs, federation, setup)
    return FederatedEmbeddings(choice, federation, graphs, done)


def _builder(
    choice: Embedding, name: str, before: FederatedStage | None, graphs: LocalGraphs, seed: int
) -> Callable[[str | None], Model]:
    """Return what makes a client's untrained model of a stage, from its own of the one before."""

    def build(client: str | None) -> Model:
        trained = before.local_model(client) if before else None
        return choice.stage(name, trained).model(graphs.triples(client), seed)

    return build


def check_federation(
    choice: Embedding, graph: PreferenceGraph, federation: EmbeddingFederation
) -> None:
    """Refuse what cannot be trained over the clients of a graph.

    Raises:
        DataError: If there are fewer clients than a cohort needs, or no public facts.
        ModelError: If the model's numbers do not belong to entities and relations.
    """
    if not choice.has_own_vectors:
        raise ModelError(
            f"{choice.name} cannot be trained over clients, since its numbers belong to no entity "
            "and no relation alone; choose hake, rotate, complex, tucker or kbgat"
        )
    split_by_client(graph)
    if federation.cohort_size > len(graph.persons):
        raise DataError(
            f"cohort_size must be at most the number of training clients, {len(graph.persons)}, "
            f"got {federation.cohort_size}; lower it or add clients"
        )
