"""The clients' side of embeddings that are trained over clients."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from pkgllm.kge.client_states import EmbeddingClientStates
from pkgllm.kge.exact_filter import ExactFilterer
from pkgllm.kge.exchange import (
    EXCHANGED,
    Message,
    Tables,
    kind_of,
    load_tables,
    local_part,
    model_tables,
    shared_part,
)
from pkgllm.kge.federation import FederatedSetup
from pkgllm.kge.local_graphs import LocalGraphs
from pkgllm.kge.local_training import moments_of, train_locally
from pkgllm.kge.pykeen_door import Model
from pkgllm.kge.settings import EmbeddingFederation, Schedule
from pkgllm.randomness import torch_seed
from pkgllm.runs.checkpoints import Sections


@dataclass(frozen=True, slots=True, kw_only=True)
class StagePlan:
    """What is trained in a stage."""

    name: str
    schedule: Schedule
    build: Callable[[str | None], Model]
    """The untrained model of a client, or with None of a newcomer."""
    alike: bool
    """Whether all clients' models are made alike, so that one serves all with other numbers."""
    identity: str
    """Everything that the result depends on besides the federation and the seed."""


class StageClients:
    """The clients' side of a stage: all that persons' vectors and facts are known to.

    Args:
        plan: What is trained.
        graphs: What each client holds.
        federation: How.
        setup: The rest.
        states: What clients keep between rounds.
    """

    def __init__(
        self,
        plan: StagePlan,
        graphs: LocalGraphs,
        federation: EmbeddingFederation,
        setup: FederatedSetup,
        states: EmbeddingClientStates,
    ) -> None:
        self.states = states
        self._plan, self._graphs, self._federation, self._setup = plan, graphs, federation, setup
        self._model: Model | None = None
        self._first: Tables = {}

    def first_tables(self) -> Tables:
        """Return what a server begins with: a newcomer's model before training."""
        self._make(None)
        return shared_part(self._first, self._federation.exchange)

    def answer(self, received: Message, last_round: int, aside: Path) -> tuple[Message, float]:
        """Train a client from what it was sent and what it kept, and return what it sends.

        Args:
            received: From the server.
            last_round: In which the client took part last; 0 for never.
            aside: A folder that PyKEEN may make.

        Returns:
            The message, and the loss, which is no part of it.
        """
        client, round_num = received.client, received.round_num
        kept = self.states.read(client, last_round) if last_round else {}
        kept, tables, loss = self._train(client, round_num, received.tables, kept, aside)
        self.states.write(client, round_num, kept)
        return Message("client", client, round_num, tables), loss

    def newcomer(self, server: Tables, rounds: int, aside: Path) -> Tables:
        """Return what somebody without facts would keep, having trained alone on public ones.

        Args:
            server: The server's tables at the end.
            rounds: Rounds to train.
            aside: A folder that PyKEEN may make.
        """
        kept: Sections = {}
        for round_num in range(1, rounds + 1):
            kept, _, _ = self._train(None, round_num, server, kept, aside)
        return kept.get("tables", {})

    def begin(self, client: str | None, shared: Tables, kept: Tables) -> Model:
        """Return a client's model with the server's tables and its own.

        Args:
            client: Who; None for a newcomer.
            shared: From the server.
            kept: Of the client; what it lacks is as it was first.
        """
        exchange = self._federation.exchange
        model = self._make(client)
        local = {**local_part(self._first, exchange), **kept}
        load_tables(model, shared=shared, local=local, exchange=exchange)
        return model

    def _make(self, client: str | None) -> Model:
        if self._model is None or not self._plan.alike:
            with torch.random.fork_rng(devices=[]):
                # The same for all, so that means are of vectors that began as one.
                torch.manual_seed(self._torch_seed("first"))
                self._model = self._plan.build(client).to(self._setup.device)
                self._model.reset_parameters_()  # type: ignore[no-untyped-call]
            self._first = {name: value.clone() for name, value in model_tables(self._model).items()}
        return self._model

    def _train(
        self, client: str | None, round_num: int, shared: Tables, kept: Sections, aside: Path
    ) -> tuple[Sections, Tables, float]:
        federation, graphs = self._federation, self._graphs
        model = self.begin(client, shared, kept.get("tables", {}))
        who = ("newcomer",) if client is None else ("client", client)
        torch.manual_seed(self._torch_seed(*who, round_num))
        epochs = train_locally(
            model,
            self._plan.schedule,
            graphs.drawn(
                client, federation.public_facts, seed=self._setup.seed, round_num=round_num
            ),
            known=ExactFilterer(torch.from_numpy(graphs.held(client))),
            epochs_before=(round_num - 1) * federation.local_epochs,
            epochs=federation.local_epochs,
            moments=kept.get("moments", {}),
            aside=aside,
        )
        tables = model_tables(model)
        # Moments of what the server replaces would point away from where the client was.
        stays = {name for name in tables if kind_of(name) not in EXCHANGED[federation.exchange]}
        kept = {
            "tables": local_part(tables, federation.exchange),
            "moments": moments_of(epochs.moments, stays),
        }
        return kept, shared_part(tables, federation.exchange), epochs.loss

    def _torch_seed(self, *names: str | int) -> int:
        return torch_seed(self._setup.seed, "federated_embeddings", self._plan.name, *names)
