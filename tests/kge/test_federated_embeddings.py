import stat
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers.embedded_letters import CHOICES as CENTRALISED
from helpers.embedded_letters import graph_of
from helpers.federated_letters import (
    CHOICES,
    EXCHANGES,
    HAKE,
    KBGAT,
    PEOPLE,
    SCHEDULE,
    content,
    everything,
    federation,
    graph,
    train,
)
from pkgllm.corpora.catalogue import Catalogue, Item
from pkgllm.errors import DataError, FederationError, ModelError, RunError, StoppedError
from pkgllm.federation.client_state import ClientStates
from pkgllm.federation.cohort import sample_cohort
from pkgllm.federation.messages import Delivery, Instruction, Update
from pkgllm.federation.rounds import RoundRecord
from pkgllm.kge.clients import StageClients
from pkgllm.kge.embedding import Embedding
from pkgllm.kge.exchange import Tables, kind_of, model_tables
from pkgllm.kge.federated_embeddings import FederatedEmbeddings, train_federated_embeddings
from pkgllm.kge.federated_stage import FederatedSetup
from pkgllm.kge.local_graphs import split_by_client
from pkgllm.kge.preference_graph import make_preference_graph
from pkgllm.kge.settings import Exchange
from pkgllm.kge.training import make_loop
from pkgllm.randomness import torch_seed

ALL = {"cohort_size": 3}
ONE = {"cohort_size": 1}


class Killed(BaseException):
    """No error that anybody would handle."""


def kill(now: bool) -> None:
    if now:
        raise Killed


class Messages:
    """What passes in each round, seen by a transport before it is read."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.down: list[dict[str, Instruction]] = []
        self.up: list[dict[str, Tables]] = []
        exchange = StageClients.exchange

        def seen(
            clients: StageClients, instructions: Mapping[str, Instruction], timeout: float
        ) -> Delivery:
            self.down.append(dict(instructions))
            delivery = exchange(clients, instructions, timeout)
            replies = {c: r for c, r in delivery.replies.items() if isinstance(r, Update)}
            assert all(r.weight == 1.0 and not r.metrics for r in replies.values())
            self.up.append({client: reply.adapter for client, reply in replies.items()})
            return delivery

        patch.setattr(StageClients, "exchange", seen)

    def tables(self) -> list[Tables]:
        return [
            *(sent.adapter for sent_in_round in self.down for sent in sent_in_round.values()),
            *(tables for sent_in_round in self.up for tables in sent_in_round.values()),
        ]


@pytest.mark.slow
@pytest.mark.parametrize("choice", [HAKE, KBGAT], ids=lambda choice: choice.name)
@pytest.mark.parametrize("exchange", EXCHANGES)
def test_no_message_has_a_person_a_list_of_rows_or_a_count(
    choice: Embedding, exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages = Messages(monkeypatch)
    trained = train(choice, exchange)
    sent_down = [sent for sent_in_round in messages.down for sent in sent_in_round.values()]
    assert all(not sent.broadcast.names and sent.kl_baseline is None for sent in sent_down)
    if exchange == "isolation":
        assert not any(messages.tables())
        return
    whole = graph()
    items_and_values = whole.triples.num_entities - len(whole.persons)
    first: dict[tuple[str, ...], list[tuple[int, ...]]] = {}
    for tables in messages.tables():
        shapes = [tuple(table.shape) for table in tables.values()]
        # All messages of a stage have the same tables of the same size, whoever sends them: so a
        # shape shows neither whose it is nor how many facts there are.
        assert first.setdefault(tuple(tables), shapes) == shapes
        for name, table in tables.items():
            assert table.dtype == torch.float32
            rows = {"entities": items_and_values, "relations": whole.triples.num_relations}
            assert kind_of(name) not in rows or len(table) == rows[kind_of(name)]
    sent = {kind_of(name) for tables in messages.tables() for name in tables}
    expected = {"fede": {"entities"}, "fedr": {"relations"}, "fedavg": {"entities", "relations"}}
    assert sent - {"network"} == expected[exchange]
    # Not under another name either: no row that is sent is a person's.
    for person in persons(trained):
        for table in (table for tables in messages.tables() for table in tables.values()):
            if table.dim() == 2 and table.shape[1] == len(person):
                assert not (table == person).all(dim=1).any()


def persons(trained: FederatedEmbeddings) -> list[torch.Tensor]:
    """The persons' rows of all clients, stages and tables."""
    return [
        table[0].clone()
        for client in trained.graphs.own
        for stage in trained.stages.values()
        for name, table in model_tables(stage.local_model(client)).items()
        if kind_of(name) == "entities"
    ]


def test_the_server_has_the_mean_of_what_its_cohort_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    messages = Messages(monkeypatch)
    trained = train(HAKE, "fede")
    later = [next(iter(sent.values())).adapter for sent in messages.down[1:]]
    for sent, after in zip(messages.up, [*later, trained.stages["hake"].server], strict=True):
        assert len(sent) == 2
        for name, table in after.items():
            mean = sum(tables[name].double() for tables in sent.values()) / len(sent)
            assert torch.equal(table, torch.as_tensor(mean).float())


@pytest.mark.slow
@pytest.mark.parametrize("choice", [HAKE, KBGAT], ids=lambda choice: choice.name)
def test_isolation_is_training_alone(choice: Embedding, tmp_path: Path) -> None:
    together = train(choice, "isolation", settings=ALL)
    for person in PEOPLE:
        folder = tmp_path / person.owner
        folder.mkdir()
        alone = train_federated_embeddings(
            choice,
            _with_relations_of_all(person.owner),
            federation("isolation", cohort_size=1),
            FederatedSetup(seed=7, folder=folder),
        )
        assert content(alone, person.owner) == content(together, person.owner)


def _with_relations_of_all(owner: str) -> Any:
    """A graph whose only client is one, with the relations that everybody's graph has."""
    whole = graph()
    triples, person = whole.triples, whole.persons[owner]
    kept = triples.triples[(triples.triples[:, 0] == person) | (triples.triples[:, 0] >= 3)].copy()
    kept[:, ::2] -= 2
    kept[:, 0] = np.maximum(kept[:, 0], 0)
    smaller = replace(triples, triples=kept, num_entities=triples.num_entities - 2)
    return replace(whole, triples=smaller, persons={owner: 0}, items=whole.items - 2)


@pytest.mark.parametrize("exchange", ["isolation", "fedavg"])
def test_one_client_trains_as_pykeen_s_batches_and_adam_say(exchange: Exchange) -> None:
    """Two rounds of one client, written out: moments stay with what stays, and only there."""
    alone = [graph_of("ann", liked="ae")]
    trained = train(HAKE, exchange, alone, settings={"cohort_size": 1})
    triples, names = split_by_client(graph(alone)).triples("ann"), ("federated_embeddings", "hake")
    with torch.random.fork_rng():
        torch.manual_seed(torch_seed(7, *names, "first"))
        model = HAKE.untrained(triples, 7)
        model.reset_parameters_()  # type: ignore[no-untyped-call]
        factory = triples.factory()
        loop = make_loop(SCHEDULE, model, factory)
        adam = torch.optim.Adam(model.parameters(), lr=SCHEDULE.learning_rate)
        for round_num in (1, 2):
            if exchange == "fedavg":
                adam = torch.optim.Adam(model.parameters(), lr=SCHEDULE.learning_rate)
            torch.manual_seed(torch_seed(7, *names, "client", "ann", round_num))
            loader = loop._create_training_data_loader(
                factory, sampler=None, batch_size=16, drop_last=False
            )
            for _ in range(2):
                for batch in loader:
                    adam.zero_grad()
                    loss = loop._process_batch_static(model, model.loss, None, batch, None, None)
                    torch.autograd.backward(loss)
                    adam.step()
    tables = trained.local_model("ann").state_dict()
    for name, value in model.state_dict().items():
        assert torch.allclose(tables[name], value, atol=1e-6), name
    # Without an exchange the two would be one; with it, Adam began anew.
    other = train(HAKE, "isolation" if exchange == "fedavg" else "fedavg", alone, settings=ONE)
    assert content(other, "ann") != content(trained, "ann")


@pytest.mark.slow
@pytest.mark.parametrize("choice", CHOICES, ids=lambda choice: choice.name)
def test_a_seed_gives_the_same_bytes_and_leaves_the_caller_s_stream_alone(
    choice: Embedding,
) -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first = everything(train(choice, "fede"))
    assert torch.rand(1) == expected
    assert everything(train(choice, "fede")) == first
    assert everything(train(choice, "fede", seed=8)) != first


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_what_is_exchanged_is_the_same_for_all_and_the_rest_is_not(exchange: Exchange) -> None:
    trained = train(HAKE, exchange, settings=ALL)
    tables = []
    for client in ("ann", "bob"):
        live = model_tables(trained.local_model(client))
        tables.append({name: table.clone() for name, table in live.items()})
    for name, one in tables[0].items():
        kind, other = kind_of(name), tables[1][name]
        shared = {"entities": ("fede", "fedavg"), "relations": ("fedr", "fedavg")}
        same = exchange in shared.get(kind, ("fede", "fedr", "fedavg"))
        if kind == "entities":
            assert not torch.equal(one[0], other[0])
            one, other = one[1:], other[1:]
        assert torch.equal(one, other) == same, name


def interrupted(
    choice: Embedding, exchange: Exchange, folder: Path, stage: str, round_num: int
) -> None:
    def on_round(name: str, record: RoundRecord, loss: float) -> None:
        # Before the server's checkpoint of the round, and after the clients' states of it.
        kill((name, record.round_num) == (stage, round_num))

    with pytest.raises(Killed):
        train(choice, exchange, folder=folder, on_round=on_round)


@pytest.mark.slow
@pytest.mark.parametrize("exchange", ["isolation", "fede", "fedr"])
def test_a_run_killed_in_any_round_ends_with_the_same_bytes(
    exchange: Exchange, tmp_path: Path
) -> None:
    settings = {"local_epochs": 1}
    undisturbed = everything(train(HAKE, exchange, settings=settings))
    for round_num in (1, 2, 3):
        with pytest.raises(Killed):
            train(
                HAKE,
                exchange,
                folder=tmp_path,
                on_round=lambda _, record, loss, at=round_num: kill(record.round_num == at),
                settings=settings,
            )
    again: list[int] = []
    trained = train(
        HAKE,
        exchange,
        folder=tmp_path,
        on_round=lambda _, record, loss: again.append(record.round_num),
        settings=settings,
    )
    assert again == [3, 4]
    assert everything(trained) == undisturbed
    again.clear()
    loaded = train(
        HAKE,
        exchange,
        folder=tmp_path,
        on_round=lambda _, record, loss: again.append(record.round_num),
        settings=settings,
    )
    assert again == []
    assert everything(loaded) == undisturbed


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["transe", "attention", "decoder"])
def test_a_stage_of_several_goes_on_from_what_clients_kept(stage: str, tmp_path: Path) -> None:
    undisturbed = everything(train(KBGAT, "fede"))
    interrupted(KBGAT, "fede", tmp_path, stage, 2)
    begun: list[tuple[str, int]] = []
    trained = train(
        KBGAT, "fede", folder=tmp_path, on_stage=lambda name, done: begun.append((name, done))
    )
    assert (stage, 1) in begun
    assert everything(trained) == undisturbed


def test_clients_keep_their_states_to_themselves(tmp_path: Path) -> None:
    train(HAKE, "fede", folder=tmp_path)
    clients = tmp_path / "hake" / "clients"
    files = list(clients.rglob("*.safetensors"))
    assert files
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert stat.S_IMODE(clients.stat().st_mode) == 0o700
    assert not any(name in str(path) for path in files for name in ("ann", "bob", "cem"))


@pytest.mark.parametrize("killed_at", [0, 1, None])
def test_in_the_end_clients_keep_their_newest_tables_alone(
    killed_at: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = everything(train(HAKE, "isolation"))
    settle, settled = StageClients.settle, list[str]()

    def settle_some(clients: StageClients, client: str, round_num: int) -> None:
        kill(len(settled) == killed_at)
        settle(clients, client, round_num)
        settled.append(client)

    if killed_at is not None:
        with monkeypatch.context() as patched:
            patched.setattr(StageClients, "settle", settle_some)
            with pytest.raises(Killed):
                train(HAKE, "isolation", folder=tmp_path)
        assert len(settled) == killed_at
    trained = train(HAKE, "isolation", folder=tmp_path)
    assert everything(trained) == undisturbed
    states = ClientStates(tmp_path / "hake" / "clients")
    for client, rounds in trained.stages["hake"].rounds.items():
        assert states.rounds(client) == tuple(rounds[-1:])
        for last in rounds[-1:]:
            tables = model_tables(trained.local_model(client))
            assert states.read(client, last).keys() == tables.keys()


def test_a_stop_ends_after_the_round_s_checkpoint(tmp_path: Path) -> None:
    undisturbed = everything(train(HAKE, "fede"))
    with pytest.raises(StoppedError, match=r"after round 1 of 2 of stage hake.*resume in"):
        train(HAKE, "fede", folder=tmp_path, stop_asked=lambda: True)
    again: list[int] = []
    trained = train(
        HAKE,
        "fede",
        folder=tmp_path,
        on_round=lambda _, record, loss: again.append(record.round_num),
    )
    assert again == [2]
    assert everything(trained) == undisturbed


@pytest.mark.parametrize(
    "other",
    [
        {"settings": {"cohort_size": 1}},
        {"seed": 8},
        {"people": PEOPLE[:2]},
        {"exchange": "fedr"},
        {"choice": replace(HAKE, margin=5.0)},
    ],
    ids=lambda other: next(iter(other)),
)
def test_checkpoints_of_another_training_are_refused(other: dict[str, Any], tmp_path: Path) -> None:
    first: dict[str, Any] = {"choice": HAKE, "exchange": "fede"}
    train(**first, folder=tmp_path)
    with pytest.raises(RunError, match="of other settings, other triples or another seed"):
        train(**first | other, folder=tmp_path)


def test_a_lost_state_of_a_client_is_named(tmp_path: Path) -> None:
    trained = train(HAKE, "fede", folder=tmp_path)
    for path in (tmp_path / "hake" / "clients").rglob("*.safetensors"):
        path.unlink()
    with pytest.raises(
        FederationError, match=r"clients: client 'ann' must have its state of round"
    ):
        everything(trained)


def test_who_took_part_is_counted() -> None:
    rounds: list[tuple[RoundRecord, float]] = []
    trained = train(
        HAKE,
        "fede",
        settings={"cohort_size": 1, "local_epochs": 2},
        on_round=lambda _, record, loss: rounds.append((record, loss)),
    )
    took_part = trained.participation["hake"]
    drawn = [client for record, _ in rounds for client in record.cohort]
    assert took_part.rounds == {owner.owner: drawn.count(owner.owner) for owner in PEOPLE}
    assert took_part.coverage == len(set(drawn)) / 3 < 1
    assert len(rounds) == 2
    assert all(np.isfinite(loss) and not record.failed for record, loss in rounds)


@pytest.mark.parametrize("exchange", ["fede", "isolation"])
def test_every_exchange_draws_the_same_cohorts_for_a_stage(exchange: Exchange) -> None:
    cohorts: list[tuple[str, ...]] = []
    train(HAKE, exchange, on_round=lambda _, record, loss: cohorts.append(record.cohort))
    names, purpose = [person.owner for person in PEOPLE], ("embedding_cohort", "hake")
    assert cohorts == [sample_cohort(names, 2, 7, round_num, purpose) for round_num in (1, 2)]


@pytest.mark.slow
@pytest.mark.parametrize("choice", [HAKE, KBGAT], ids=lambda choice: choice.name)
@pytest.mark.parametrize("exchange", EXCHANGES)
def test_one_client_and_a_client_without_facts_are_enough(
    choice: Embedding, exchange: Exchange
) -> None:
    people = [graph_of("ann", liked="a"), graph_of("nobody")]
    for some in (people[:1], people):
        trained = train(choice, exchange, some, settings={"cohort_size": len(some)})
        for client in (*trained.graphs.own, None):
            for table in trained.local_model(client).state_dict().values():
                assert torch.isfinite(table).all()


@pytest.mark.parametrize("exchange", ["isolation", "fedr"])
def test_a_newcomer_trains_alone_where_items_are_not_exchanged(exchange: Exchange) -> None:
    """In isolation it is what a client without facts has that takes part in as many rounds."""
    people = [graph_of("ann", liked="a"), graph_of("bob", liked="b")]
    trained = train(HAKE, exchange, people)
    newcomer = {n: t.clone() for n, t in model_tables(trained.local_model(None)).items()}
    first = trained.stages["hake"].clients._first
    moved = [name for name, table in newcomer.items() if kind_of(name) == "entities"]
    assert all(not torch.equal(newcomer[name], first[name]) for name in moved)


def test_a_newcomer_has_the_server_s_items_and_first_relations_in_fede() -> None:
    trained = train(HAKE, "fede")
    stage = trained.stages["hake"]
    for name, table in model_tables(trained.local_model(None)).items():
        first = stage.clients._first[name]
        if kind_of(name) == "entities":
            assert torch.equal(table[1:], stage.server[name])
            assert torch.equal(table[0], first[0])
        elif kind_of(name) == "relations":
            assert torch.equal(table, first)


def test_public_facts_are_drawn_anew_and_a_client_s_own_are_all_there() -> None:
    graphs = split_by_client(graph())
    one, same, other = (
        graphs.drawn("bob", 5, seed=0, round_num=round_num) for round_num in (1, 1, 2)
    )
    assert np.array_equal(one.triples, same.triples)
    assert not np.array_equal(one.triples, other.triples)
    own, public = (set(map(tuple, part.tolist())) for part in (graphs.own["bob"], graphs.public))
    for drawn in (one, other):
        rows = set(map(tuple, drawn.triples.tolist()))
        assert len(own) == 4
        assert own <= rows <= own | public
        assert len(rows) == 4 + 5
    everything_held = graphs.drawn("bob", None, seed=0, round_num=1)
    assert len(everything_held.triples) == len(own) + len(public)
    assert len(graphs.drawn(None, 5, seed=0, round_num=1).triples) == 5
    train(HAKE, "fede", settings={"public_facts": 5})


def test_what_cannot_be_federated_is_refused() -> None:
    for choice in CENTRALISED:
        if choice.name in ("comp_gcn", "node_piece"):
            with pytest.raises(ModelError, match=f"{choice.name} cannot be trained over clients"):
                train(choice, "fede")
    with pytest.raises(DataError, match="at most the number of training clients, 3, got 4"):
        train(HAKE, "fede", settings={"cohort_size": 4})
    bare = make_preference_graph(Catalogue([Item("1", "Bare")]), [graph_of("only", liked=["1"])])
    with pytest.raises(DataError, match="need public facts of the items"):
        split_by_client(bare)


def test_a_loss_that_is_not_finite_ends_training_and_says_what_to_do() -> None:
    wild = replace(HAKE, schedule=replace(SCHEDULE, learning_rate=1e30))
    with pytest.raises(ModelError, match="a client's loss must stay finite"):
        train(wild, "fede")
