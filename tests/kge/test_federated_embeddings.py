import stat
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
from pkgllm.errors import DataError, ModelError, RunError, StoppedError
from pkgllm.kge.client_states import EmbeddingClientStates
from pkgllm.kge.embedding import Embedding
from pkgllm.kge.exchange import Message, kind_of, model_tables
from pkgllm.kge.federated_embeddings import FederatedEmbeddings, train_federated_embeddings
from pkgllm.kge.federated_stage import draw_cohort
from pkgllm.kge.federation import EmbeddingRound, FederatedSetup
from pkgllm.kge.local_graphs import split_by_client
from pkgllm.kge.preference_graph import make_preference_graph
from pkgllm.kge.settings import Exchange
from pkgllm.kge.training import make_loop
from pkgllm.randomness import torch_seed
from pkgllm.runs.checkpoints import Checkpoints

ALL = {"cohort_size": 3}
ONE = {"cohort_size": 1}


class Killed(BaseException):
    """No error that anybody would handle."""


@pytest.mark.parametrize("choice", [HAKE, KBGAT], ids=lambda choice: choice.name)
@pytest.mark.parametrize("exchange", EXCHANGES)
def test_no_message_has_a_person_a_list_of_rows_or_a_count(
    choice: Embedding, exchange: Exchange
) -> None:
    messages: list[Message] = []
    trained = train(choice, exchange, on_message=messages.append)
    if exchange == "isolation":
        assert messages == []
        return
    whole = graph()
    items_and_values = whole.triples.num_entities - len(whole.persons)
    first: dict[tuple[str, ...], list[tuple[int, ...]]] = {}
    for message in messages:
        names = tuple(message.tables)
        shapes = [tuple(table.shape) for table in message.tables.values()]
        # All messages of a stage have the same tables of the same size, whoever sends them: so a
        # shape tells nothing of whom or of how many facts.
        assert first.setdefault(names, shapes) == shapes
        for name, table in message.tables.items():
            assert table.dtype == torch.float32
            rows = {"entities": items_and_values, "relations": whole.triples.num_relations}
            assert kind_of(name) not in rows or len(table) == rows[kind_of(name)]
    sent = {kind_of(name) for message in messages for name in message.tables}
    expected = {"fede": {"entities"}, "fedr": {"relations"}, "fedavg": {"entities", "relations"}}
    assert sent - {"network"} == expected[exchange]
    # Not under another name either: no row that is sent is a person's.
    for person in persons(trained):
        for table in (table for message in messages for table in message.tables.values()):
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


def test_the_server_has_the_mean_of_what_its_cohort_sent() -> None:
    messages: list[Message] = []
    rounds: list[EmbeddingRound] = []
    trained = train(HAKE, "fede", on_message=messages.append, on_round=rounds.append)
    for done in rounds:
        now = [m for m in messages if m.round_num == done.round_num]
        assert sorted(m.client for m in now if m.sender == "client") == list(done.cohort)
        sent = [m for m in now if m.sender == "client"]
        later = [m for m in messages if m.round_num == done.round_num + 1 and m.sender == "server"]
        after = later[0].tables if later else trained.stages["hake"].server
        for name, table in after.items():
            mean = sum(m.tables[name].double() for m in sent) / len(sent)
            assert torch.equal(table, torch.as_tensor(mean).float())


@pytest.mark.parametrize("choice", [HAKE, KBGAT], ids=lambda choice: choice.name)
def test_isolation_is_training_alone(choice: Embedding) -> None:
    together = train(choice, "isolation", settings=ALL)
    for person in PEOPLE:
        alone = train_federated_embeddings(
            choice,
            _with_relations_of_all(person.owner),
            federation("isolation", cohort_size=1),
            FederatedSetup(seed=7),
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
    found = trained.local_model("ann").state_dict()
    for name, value in model.state_dict().items():
        assert torch.allclose(found[name], value, atol=1e-6), name
    # Without an exchange the two would be one; with it, Adam began anew.
    other = train(HAKE, "isolation" if exchange == "fedavg" else "fedavg", alone, settings=ONE)
    assert content(other, "ann") != content(trained, "ann")


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
    def kill(done: EmbeddingRound) -> None:
        # Before the server's checkpoint of the round, and after the clients' states of it.
        if (done.stage, done.round_num) == (stage, round_num):
            raise Killed

    with pytest.raises(Killed):
        train(choice, exchange, folder=folder, on_round=kill)


@pytest.mark.parametrize("exchange", ["isolation", "fede", "fedr"])
def test_a_run_killed_in_any_round_ends_with_the_same_bytes(
    exchange: Exchange, tmp_path: Path
) -> None:
    settings = {"local_epochs": 1}
    undisturbed = everything(train(HAKE, exchange, settings=settings))
    for round_num in (1, 2, 3):

        def kill(done: EmbeddingRound, at: int = round_num) -> None:
            if done.round_num == at:
                raise Killed

        with pytest.raises(Killed):
            train(HAKE, exchange, folder=tmp_path, on_round=kill, settings=settings)
    again: list[int] = []
    found = train(
        HAKE,
        exchange,
        folder=tmp_path,
        on_round=lambda done: again.append(done.round_num),
        settings=settings,
    )
    assert again == [3, 4]
    assert everything(found) == undisturbed
    again.clear()
    loaded = train(
        HAKE,
        exchange,
        folder=tmp_path,
        on_round=lambda done: again.append(done.round_num),
        settings=settings,
    )
    assert again == []
    assert everything(loaded) == undisturbed


@pytest.mark.parametrize("stage", ["transe", "attention", "decoder"])
def test_a_stage_of_several_goes_on_from_what_clients_kept(stage: str, tmp_path: Path) -> None:
    undisturbed = everything(train(KBGAT, "fede"))
    interrupted(KBGAT, "fede", tmp_path, stage, 2)
    begun: list[tuple[str, int]] = []
    found = train(
        KBGAT, "fede", folder=tmp_path, on_stage=lambda name, done: begun.append((name, done))
    )
    assert (stage, 1) in begun
    assert everything(found) == undisturbed


def test_clients_keep_their_states_to_themselves(tmp_path: Path) -> None:
    train(HAKE, "fede", folder=tmp_path)
    clients = tmp_path / "hake" / "clients"
    files = list(clients.rglob("*.safetensors"))
    assert files
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert stat.S_IMODE(clients.stat().st_mode) == 0o700
    assert not any(name in str(path) for path in files for name in ("ann", "bob", "cem"))


@pytest.mark.parametrize("killed_at", [0, 1, None])
def test_in_the_end_clients_keep_their_newest_vectors_alone(
    killed_at: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = everything(train(HAKE, "isolation"))
    settle, settled = EmbeddingClientStates.settle, list[str]()

    def kill(states: EmbeddingClientStates, client: str, round_num: int) -> None:
        if len(settled) == killed_at:
            raise Killed
        settle(states, client, round_num)
        settled.append(client)

    if killed_at is not None:
        with monkeypatch.context() as patched:
            patched.setattr(EmbeddingClientStates, "settle", kill)
            with pytest.raises(Killed):
                train(HAKE, "isolation", folder=tmp_path)
        assert len(settled) == killed_at
    trained = train(HAKE, "isolation", folder=tmp_path)
    assert everything(trained) == undisturbed
    last_round = trained.stages["hake"].last_round
    for number, client in enumerate(sorted(last_round)):
        checkpoints = Checkpoints(tmp_path / f"hake/clients/{number:06d}", keep=1)
        newest = checkpoints.newest()
        assert newest is not None
        assert (newest.position, list(newest.sections)) == (last_round[client], ["tables"])
        assert len(list((tmp_path / f"hake/clients/{number:06d}").rglob("*.safetensors"))) == 1


def test_a_stop_ends_after_the_round_s_checkpoint(tmp_path: Path) -> None:
    undisturbed = everything(train(HAKE, "fede"))
    with pytest.raises(StoppedError, match=r"after round 1 of 2 of stage hake.*go on in"):
        train(HAKE, "fede", folder=tmp_path, stop_asked=lambda: True)
    again: list[int] = []
    found = train(HAKE, "fede", folder=tmp_path, on_round=lambda done: again.append(done.round_num))
    assert again == [2]
    assert everything(found) == undisturbed
    with pytest.raises(StoppedError, match="no checkpoint was kept"):
        train(HAKE, "fede", stop_asked=lambda: True)


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
    given: dict[str, Any] = {"choice": HAKE, "exchange": "fede"}
    train(**given, folder=tmp_path)
    with pytest.raises(RunError, match="of other settings, other triples or another seed"):
        train(**given | other, folder=tmp_path)


def test_a_lost_state_of_a_client_is_named(tmp_path: Path) -> None:
    trained = train(HAKE, "fede", folder=tmp_path)
    for path in (tmp_path / "hake" / "clients").rglob("*.safetensors"):
        path.unlink()
    with pytest.raises(RunError, match=r"clients/00000.*must hold a whole checkpoint"):
        everything(trained)


def test_who_took_part_is_counted() -> None:
    rounds: list[EmbeddingRound] = []
    settings = {"cohort_size": 1, "local_epochs": 2}
    found = train(HAKE, "fede", settings=settings, on_round=rounds.append).participation["hake"]
    drawn = [client for done in rounds for client in done.cohort]
    assert found.rounds == {owner.owner: drawn.count(owner.owner) for owner in PEOPLE}
    assert found.coverage == len(set(drawn)) / 3 < 1
    assert all(np.isfinite(done.loss) and done.num_rounds == 2 for done in rounds)


def test_cohorts_are_drawn_without_replacement_by_seed_stage_and_round() -> None:
    names = [f"{number:02d}" for number in range(30)]
    found = {
        (seed, stage, round_num): draw_cohort(names, 5, seed=seed, stage=stage, round_num=round_num)
        for seed in (0, 1)
        for stage in ("a", "b")
        for round_num in (1, 2)
    }
    assert len(set(found.values())) == 8
    for cohort in found.values():
        assert len(cohort) == 5
        assert list(cohort) == sorted(set(cohort))
    with pytest.raises(ValueError, match="larger sample"):
        draw_cohort(names, 31, seed=0, stage="a", round_num=1)


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


def test_a_loss_that_is_not_finite_ends_training_with_advice() -> None:
    wild = replace(HAKE, schedule=replace(SCHEDULE, learning_rate=1e30))
    with pytest.raises(ModelError, match="a client's loss must stay finite"):
        train(wild, "fede")
