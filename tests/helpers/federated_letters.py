"""A federation of few clients in the world of letters, and short trainings of it."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from helpers.embedded_letters import CATALOGUE, graph_of
from pkgllm.graph.personal_graph import PersonalGraph
from pkgllm.kge.embedding import Embedding
from pkgllm.kge.embeddings.complex import Complex
from pkgllm.kge.embeddings.hake import Hake
from pkgllm.kge.embeddings.kbgat import Kbgat
from pkgllm.kge.embeddings.rotate import Rotate
from pkgllm.kge.embeddings.tucker import Tucker
from pkgllm.kge.federated_embeddings import (
    FederatedEmbeddings,
    train_federated_embeddings,
)
from pkgllm.kge.federated_stage import FederatedSetup
from pkgllm.kge.preference_graph import PreferenceGraph, make_preference_graph
from pkgllm.kge.settings import EmbeddingFederation, Exchange, Schedule

EXCHANGES: list[Exchange] = ["isolation", "fede", "fedr", "fedavg"]
SCHEDULE = Schedule(epochs=4, batch_size=16, num_negatives=4, learning_rate=0.02)
HAKE = Hake(dim=4, margin=4.0, schedule=SCHEDULE)
KBGAT = Kbgat(
    transe_dim=4,
    dim=3,
    transe_schedule=SCHEDULE,
    attention_schedule=replace(SCHEDULE, batch_size=None),
    decoder_schedule=SCHEDULE,
    filters=2,
)
CHOICES: list[Embedding] = [
    HAKE,
    KBGAT,
    Rotate(dim=4, margin=4.0, schedule=SCHEDULE),
    Complex(dim=4, schedule=SCHEDULE),
    Tucker(dim=4, relation_dim=3, schedule=SCHEDULE),
]
PEOPLE = [
    graph_of("ann", liked="ae"),
    graph_of("bob", liked="bcd", disliked="a"),
    graph_of("cem", liked="fgh"),
]

_FOLDERS: list[TemporaryDirectory[str]] = []
"""Of trainings whose folder no test looks at; their clients' tables are read until the end."""


def graph(people: list[PersonalGraph] = PEOPLE) -> PreferenceGraph:
    return make_preference_graph(CATALOGUE, people)


def federation(exchange: Exchange, **settings: Any) -> EmbeddingFederation:
    return EmbeddingFederation(
        exchange=exchange, **{"cohort_size": 2, "local_epochs": 2} | settings
    )


def train(
    choice: Embedding,
    exchange: Exchange,
    people: list[PersonalGraph] = PEOPLE,
    *,
    folder: Path | None = None,
    settings: dict[str, Any] | None = None,
    **setup: Any,
) -> FederatedEmbeddings:
    if folder is None:
        _FOLDERS.append(TemporaryDirectory())
        folder = Path(_FOLDERS[-1].name)
    return train_federated_embeddings(
        choice,
        graph(people),
        federation(exchange, **settings or {}),
        FederatedSetup(folder=folder, **{"seed": 7, **setup}),
    )


def content(trained: FederatedEmbeddings, client: str | None) -> dict[str, bytes]:
    """The bytes of the model that a client has at the end."""
    state = trained.local_model(client).state_dict()
    return {name: value.numpy().tobytes() for name, value in state.items()}


def everything(trained: FederatedEmbeddings) -> list[dict[str, bytes]]:
    return [content(trained, client) for client in (*trained.graphs.own, None)]
