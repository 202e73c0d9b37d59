"""One stage of embeddings that are trained over clients, by the rounds of every federation."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pkgllm.errors import StoppedError
from pkgllm.federation.cohort import sample_cohort
from pkgllm.federation.rounds import RoundRecord, Rounds, run_rounds
from pkgllm.kge.checkpoints import check_identity, identity_tensor, training_identity
from pkgllm.kge.clients import StageClients, StagePlan
from pkgllm.kge.exchange import EXCHANGED, TableMean, Tables
from pkgllm.kge.local_graphs import LocalGraphs
from pkgllm.kge.pykeen_door import Model
from pkgllm.kge.settings import EmbeddingFederation
from pkgllm.kge.training import StageSetup, own_randomness, stage_checkpoints
from pkgllm.runs.checkpoints import Sections


@dataclass(frozen=True, slots=True, kw_only=True)
class FederatedSetup(StageSetup):
    """How embeddings are trained over clients, with its callbacks."""

    folder: Path
    """Keeps the server's checkpoints, and apart from them what each client keeps to itself. It must
    exist."""
    on_round: Callable[[str, RoundRecord, float], None] = lambda stage, record, loss: None
    """Called after every round, before its checkpoint, with the stage's name and the cohort's mean
    loss, which no message has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FederatedStage:
    """A stage that is done."""

    clients: StageClients
    server: Tables
    newcomer: Tables
    """What a client holds that never took part, besides the server's tables and its first ones."""
    rounds: Mapping[str, Sequence[int]]
    """Numbers of the rounds that each client took part in."""

    def local_model(self, client: str | None) -> Model:
        """Return a client's model in evaluation mode; the next call changes it.

        Args:
            client: Id; None for somebody who took no part in training.
        """
        rounds = self.rounds[client] if client is not None else ()
        local = self.clients.tables(client, rounds[-1]) if client is not None and rounds else {}
        return self.clients.begin(client, self.server, local or self.newcomer).eval()


def run_stage(
    plan: StagePlan,
    graphs: LocalGraphs,
    federation: EmbeddingFederation,
    setup: FederatedSetup,
) -> FederatedStage:
    """Train a stage over clients, from its newest checkpoint where there is one.

    Raises:
        FederationError: If there are fewer clients than a cohort needs, or the tables of a client
            are not finite.
        ModelError: If a loss is not finite, or the device cannot be used.
        StoppedError: If a stop was asked for.
        RunError: If checkpoints are of another training, or cannot be read or written.
    """
    names, num_rounds = sorted(graphs.own), federation.num_rounds(plan.schedule)
    cohort_size, seed, stream = federation.cohort_size, setup.seed, ("embedding_cohort", plan.name)
    rounds: dict[str, list[int]] = {name: [] for name in names}
    for round_num in range(1, num_rounds + 1):
        for client in sample_cohort(names, cohort_size, seed, round_num, stream):
            rounds[client].append(round_num)
    checkpoints = stage_checkpoints(setup.folder, plan.name, setup.keep)
    identity = training_identity(plan.identity, plan.name, federation, seed)
    folder = setup.folder / plan.name / "clients"
    clients = StageClients(plan, graphs, federation, seed=seed, device=setup.device, folder=folder)
    newest = checkpoints.newest()
    if newest is not None:
        check_identity(newest.section("progress"), identity)
    done = newest.position if newest else 0
    setup.on_stage(plan.name, min(done, num_rounds))
    if newest is not None and done > num_rounds:
        server, newcomer = newest.section("server"), newest.section("newcomer")
        return FederatedStage(clients=clients, server=server, newcomer=newcomer, rounds=rounds)

    def write(position: int, sections: Sections) -> None:
        checkpoints.write(
            position, {**sections, "progress": {"identity": identity_tensor(identity)}}
        )

    def on_round(record: RoundRecord) -> None:
        setup.on_round(plan.name, record, clients.loss)
        write(record.round_num, {"server": record.adapter, "strategy": record.state})
        if setup.stop_asked() and record.round_num < num_rounds:
            raise StoppedError(
                f"stopped after round {record.round_num} of {num_rounds} of stage {plan.name}, as "
                f"asked; resume in {setup.folder}"
            )

    with own_randomness(setup.device, seed, plan.name):
        server = run_rounds(
            clients,
            Rounds(
                algorithm=TableMean(),
                initial=newest.section("server") if newest else clients.first_tables(),
                state=newest.section("strategy") if newest else None,
                first_round=done + 1,
                num_rounds=num_rounds,
                cohort_size=cohort_size,
                min_updates=cohort_size,
                seed=seed,
                cohort_stream=stream,
                # Clients let it decay from epoch to epoch by themselves.
                learning_rate=lambda _: plan.schedule.learning_rate,
                timeout=math.inf,
                on_round=on_round,
            ),
        )
        newcomer = {}
        if "entities" not in EXCHANGED[federation.exchange]:
            newcomer = clients.newcomer(server, math.ceil(num_rounds * cohort_size / len(names)))
        for client, numbers in rounds.items():
            if numbers:
                clients.settle(client, numbers[-1])
        write(num_rounds + 1, {"server": server, "newcomer": newcomer})
    return FederatedStage(clients=clients, server=server, newcomer=newcomer, rounds=rounds)
