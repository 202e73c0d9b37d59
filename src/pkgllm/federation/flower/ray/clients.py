"""The clients' side on Ray: what an actor builds once and answers messages with."""

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from pkgllm.federation.clients import LocalClients
from pkgllm.federation.flower.client_app import CohortApp, logged_failure
from pkgllm.federation.flower.records import CLIENT_ID

PARTITION_ID = "partition-id"
"""Flower's number of a simulated client, from 0."""


@dataclass(frozen=True, slots=True)
class ActorClients:
    """What an actor needs to be any of the clients."""

    clients: LocalClients
    names: Sequence[str]
    """All clients' ids; the position of each in their sorted order is its partition id."""


MakeClients = Callable[[], ActorClients]
"""Builds the clients' side inside an actor. Pickled; equal ones build the same."""


@dataclass(frozen=True, slots=True)
class ActorSettings:
    """How an actor comes to its clients, and where it says what failed."""

    make_clients: MakeClients
    """Called once in each process."""
    threads: int
    """Threads of torch on the CPU."""
    log: Path
    """File to which an actor adds why a client failed. Private: it may quote facts."""


class ActorApp(ClientApp):
    """Flower's app for one simulated client, small enough to be pickled with every message.

    The base model and the groups' index stay in the actor's process from message to message. An
    exception is answered with its type only, that of the building included: Flower would send its
    text.
    """

    def __init__(self, settings: ActorSettings) -> None:
        super().__init__()
        self._settings = settings

    def __call__(self, message: Message, context: Context) -> Message:
        """Answer one message of the client that the context's partition stands for."""
        _log_to(self._settings.log)
        partition = int(context.node_config[PARTITION_ID])
        try:
            app, clients = _built(self._settings)
            client = clients[partition]
        except Exception as error:
            return logged_failure(message, f"number {partition}", error)
        context.node_config = {**context.node_config, CLIENT_ID: client}
        try:
            return app.flower_app(message, context)
        except Exception as error:
            return logged_failure(message, client, error)


@lru_cache(maxsize=1)
def _log_to(path: Path) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, mode=0o600)
    handler = logging.StreamHandler(os.fdopen(descriptor, "a", encoding="utf-8"))
    handler.setLevel(logging.WARNING)
    logging.getLogger("pkgllm").addHandler(handler)


@lru_cache(maxsize=1)
def _built(settings: ActorSettings) -> tuple[CohortApp, tuple[str, ...]]:
    torch.set_num_threads(settings.threads)
    made = settings.make_clients()
    return CohortApp(made.clients), tuple(sorted(made.names))
