"""The server's side of embeddings that are trained over clients: the rounds of one stage."""

import hashlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import numpy as np

from pkgllm.errors import StoppedError
from pkgllm.files import cannot
from pkgllm.kge.checkpoints import check_identity, identity_tensor
from pkgllm.kge.client_states import EmbeddingClientStates
from pkgllm.kge.clients import StageClients, StagePlan
from pkgllm.kge.exchange import EXCHANGED, Message, Tables, mean_tables
from pkgllm.kge.federation import (
    EmbeddingRound,
    FederatedSetup,
)
from pkgllm.kge.local_graphs import LocalGraphs
from pkgllm.kge.pykeen_door import Model
from pkgllm.kge.settings import EmbeddingFederation
from pkgllm.kge.training import own_randomness
from pkgllm.randomness import stream
from pkgllm.runs.checkpoints import Checkpoints


@dataclass(frozen=True, slots=True, kw_only=True)
class FederatedStage:
    """A stage that is done."""

    clients: StageClients
    server: Tables
    newcomer: Tables
    """What a client holds that never took part, besides the server's tables and its first ones."""
    last_round: Mapping[str, int]
    """Round in which each client took part last; those who never did are not in it."""
    rounds: Mapping[str, int]
    """Rounds that each client took part in; 0 for those who never did."""

    def local_model(self, client: str | None) -> Model:
        """Return a client's model in evaluation mode; it is good until another one is asked for.

        Args:
            client: Who; None for somebody who took no part in training.
        """
        last = self.last_round.get(client, 0) if client is not None else 0
        kept = self.clients.states.read(client, last).get("tables", {}) if client and last else {}
        return self.clients.begin(client, self.server, kept or self.newcomer).eval()


def draw_cohort(
    clients: Sequence[str], size: int, *, seed: int, stage: str, round_num: int
) -> tuple[str, ...]:
    """Draw the clients of a round uniformly without replacement; sorted.

    Raises:
        ValueError: If there are too few.
    """
    draws = stream(seed, "embedding_cohort", stage, round_num)
    return tuple(clients[at] for at in np.sort(draws.choice(len(clients), size, replace=False)))


def run_stage(
    plan: StagePlan,
    graphs: LocalGraphs,
    federation: EmbeddingFederation,
    setup: FederatedSetup,
) -> FederatedStage:
    """Train a stage over clients, from its newest checkpoint where there is one.

    Raises:
        ValueError: If there are fewer clients than a cohort needs.
        ModelError: If a loss is not finite, or the device cannot be used.
        StoppedError: If a stop was asked for.
        RunError: If checkpoints are of another training, or cannot be read or written.
    """
    names = tuple(sorted(graphs.own))
    num_rounds = federation.num_rounds(plan.schedule)
    cohorts = [
        draw_cohort(names, federation.cohort_size, seed=setup.seed, stage=plan.name, round_num=r)
        for r in range(1, num_rounds + 1)
    ]
    folder = _folder(setup.folder, plan.name)
    checkpoints = Checkpoints(folder, keep=setup.keep) if folder else None
    told = f"{plan.identity} {plan.name} {federation!r} {setup.seed}"
    identity = hashlib.sha256(told.encode()).hexdigest()
    states = EmbeddingClientStates(folder / "clients" if folder else None, names)
    clients = StageClients(plan, graphs, federation, setup, states)
    newest = checkpoints.newest() if checkpoints else None
    server, done = clients.first_tables(), 0
    if newest is not None:
        check_identity(newest.section("progress"), identity)
        server, done = newest.section("server"), newest.position
    setup.on_stage(plan.name, min(done, num_rounds))
    last_round = {c: r for r, cohort in enumerate(cohorts[:done], 1) for c in cohort}

    def keep(position: int, newcomer: Tables) -> None:
        if checkpoints:
            progress = {"identity": identity_tensor(identity)}
            checkpoints.write(
                position, {"server": server, "newcomer": newcomer, "progress": progress}
            )

    with ExitStack() as stack:
        stack.enter_context(own_randomness(setup.device, setup.seed, plan.name))
        aside = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for round_num, cohort in enumerate(cohorts[done:], done + 1):
            server, loss = _run_round(
                clients, cohort, server, last_round, round_num, federation, setup, aside
            )
            last_round |= dict.fromkeys(cohort, round_num)
            setup.on_round(EmbeddingRound(plan.name, round_num, num_rounds, cohort, loss))
            keep(round_num, {})
            if setup.stop_asked() and round_num < num_rounds:
                raise StoppedError(
                    f"stopped after round {round_num} of {num_rounds} of stage {plan.name}, as "
                    "asked"
                    + (f"; go on in {setup.folder}" if folder else "; no checkpoint was kept")
                )
        if newest is not None and done > num_rounds:
            newcomer: Tables = newest.section("newcomer")
        else:
            newcomer = {}
            if "entities" not in EXCHANGED[federation.exchange]:
                mean_rounds = ceil(num_rounds * federation.cohort_size / len(names))
                newcomer = clients.newcomer(server, mean_rounds, aside)
            for client, last in last_round.items():
                states.settle(client, last)
            keep(num_rounds + 1, newcomer)
    return FederatedStage(
        clients=clients,
        server=server,
        newcomer=newcomer,
        last_round=last_round,
        rounds={client: sum(client in cohort for cohort in cohorts) for client in names},
    )


def _run_round(
    clients: StageClients,
    cohort: Sequence[str],
    server: Tables,
    last_round: Mapping[str, int],
    round_num: int,
    federation: EmbeddingFederation,
    setup: FederatedSetup,
    aside: Path,
) -> tuple[Tables, float]:
    """Return the server's tables after a round, and the cohort's mean loss."""
    exchanges = bool(EXCHANGED[federation.exchange])
    losses = []

    def updates() -> Iterator[Tables]:
        for client in cohort:
            down = Message("server", client, round_num, server)
            if exchanges:
                setup.on_message(down)
            up, loss = clients.answer(down, last_round.get(client, 0), aside)
            if exchanges:
                setup.on_message(up)
            losses.append(loss)
            yield up.tables

    return mean_tables(updates()), sum(losses) / len(losses)


def _folder(folder: Path | None, stage: str) -> Path | None:
    if folder is None:
        return None
    place = folder / stage
    try:
        place.mkdir(exist_ok=True)
    except OSError as error:
        raise cannot("make", place, error) from error
    return place
