"""The clients' side of embeddings that are trained over clients."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from pkgllm.federation.client_state import ClientStates
from pkgllm.federation.messages import Delivery, Instruction, Update
from pkgllm.kge.exact_filter import ExactFilterer
from pkgllm.kge.exchange import (
    EXCHANGED,
    Tables,
    kind_of,
    load_tables,
    local_part,
    model_tables,
    shared_part,
)
from pkgllm.kge.local_graphs import LocalGraphs
from pkgllm.kge.local_training import moments_of, tables_of, train_locally
from pkgllm.kge.pykeen_door import Model
from pkgllm.kge.settings import EmbeddingFederation, Schedule
from pkgllm.randomness import torch_seed


@dataclass(frozen=True, slots=True, kw_only=True)
class StagePlan:
    """What is trained in a stage."""

    name: str
    schedule: Schedule
    build: Callable[[str | None], Model]
    """The untrained model of a client, or with None of a newcomer."""
    alike: bool
    """Whether all clients' models are built alike, so that one serves all with other numbers."""
    identity: str
    """Everything that the result depends on besides the federation and the seed."""


class StageClients:
    """The clients of a stage: nothing else knows persons' vectors and facts.

    It is the transport of the stage's rounds: clients train one after the other in this process,
    and an error in one of them ends the training.

    Args:
        plan: What is trained.
        graphs: What each client holds.
        federation: What is exchanged, and how clients train.
        seed: The run's seed.
        device: Where clients train.
        folder: Keeps each client's own tables and Adam's moments between rounds.
    """

    def __init__(
        self,
        plan: StagePlan,
        graphs: LocalGraphs,
        federation: EmbeddingFederation,
        *,
        seed: int,
        device: str,
        folder: Path,
    ) -> None:
        self.loss = float("nan")
        """Mean over the last cohort of its last local epoch. Only the simulation sees it: no
        message has it."""
        self._plan, self._graphs, self._federation = plan, graphs, federation
        self._seed, self._device = seed, device
        self._states = ClientStates(folder)
        self._model: Model | None = None
        self._first: Tables = {}

    def first_tables(self) -> Tables:
        """Return what a server begins with: a newcomer's model before training."""
        self._make(None)
        return shared_part(self._first, self._federation.exchange)

    def clients(self, timeout: float) -> Collection[str]:
        """See :class:`~pkgllm.federation.messages.Transport`."""
        return self._graphs.own.keys()

    def exchange(self, instructions: Mapping[str, Instruction], timeout: float) -> Delivery:
        """Train each client from the tables that it was sent and from what it kept."""
        replies, losses = {}, []
        for client, sent in instructions.items():
            accepted = sent.accepted_round or 0
            state = self._states.read(client, accepted) if accepted else {}
            state, tables, loss = self._train(client, sent.round_num, sent.adapter, state)
            self._states.write(client, state, round_num=sent.round_num, accepted_round=accepted)
            replies[client] = Update(adapter=tables)
            losses.append(loss)
        self.loss = sum(losses) / len(losses)
        return Delivery(replies=replies)

    def tables(self, client: str, round_num: int) -> Tables:
        """Return a client's own tables after a round that it took part in."""
        return tables_of(self._states.read(client, round_num))

    def settle(self, client: str, round_num: int) -> None:
        """Leave a client its tables after its last round alone, a third or less of its state."""
        tables = self.tables(client, round_num)
        self._states.write(client, tables, round_num=round_num, accepted_round=round_num)

    def newcomer(self, server: Tables, rounds: int) -> Tables:
        """Return what somebody without facts would keep, having trained alone on public ones.

        Args:
            server: The server's tables at the end.
            rounds: Rounds to train.
        """
        state: Tables = {}
        for round_num in range(1, rounds + 1):
            state, _, _ = self._train(None, round_num, server, state)
        return tables_of(state)

    def begin(self, client: str | None, shared: Tables, local: Tables) -> Model:
        """Return a client's model with the server's tables and its own.

        Args:
            client: Id; None for a newcomer.
            shared: From the server.
            local: Of the client; tables that are not in it have their first values.
        """
        exchange = self._federation.exchange
        model = self._make(client)
        local = {**local_part(self._first, exchange), **local}
        load_tables(model, shared=shared, local=local, exchange=exchange)
        return model

    def _make(self, client: str | None) -> Model:
        if self._model is None or not self._plan.alike:
            with torch.random.fork_rng(devices=[]):
                # The same for all, so that means are of vectors that began as one.
                torch.manual_seed(self._torch_seed("first"))
                self._model = self._plan.build(client).to(self._device)
                self._model.reset_parameters_()  # type: ignore[no-untyped-call]
            self._first = {name: value.clone() for name, value in model_tables(self._model).items()}
        return self._model

    def _train(
        self, client: str | None, round_num: int, shared: Tables, state: Tables
    ) -> tuple[Tables, Tables, float]:
        """Return what a client keeps after a round, what it sends, and its loss."""
        federation, graphs = self._federation, self._graphs
        model = self.begin(client, shared, tables_of(state))
        who = ("newcomer",) if client is None else ("client", client)
        torch.manual_seed(self._torch_seed(*who, round_num))
        loss, moments = train_locally(
            model,
            self._plan.schedule,
            graphs.drawn(client, federation.public_facts, seed=self._seed, round_num=round_num),
            known=ExactFilterer(torch.from_numpy(graphs.held(client))),
            epochs_before=(round_num - 1) * federation.local_epochs,
            epochs=federation.local_epochs,
            moments=state,
        )
        tables = model_tables(model)
        # Moments of what the server replaces would point away from where the client was.
        own = {name for name in tables if kind_of(name) not in EXCHANGED[federation.exchange]}
        state = {**local_part(tables, federation.exchange), **moments_of(moments, own)}
        return state, shared_part(tables, federation.exchange), loss

    def _torch_seed(self, *names: str | int) -> int:
        return torch_seed(self._seed, "federated_embeddings", self._plan.name, *names)
