import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers.embedding_choices import ring
from helpers.federated_letters import EXCHANGES, HAKE, KBGAT
from pkgllm.federation.messages import Update
from pkgllm.kge.embeddings.rotate import Rotate
from pkgllm.kge.exchange import (
    TableMean,
    kind_of,
    load_tables,
    local_part,
    model_tables,
    shared_part,
)
from pkgllm.kge.pykeen_door import Model
from pkgllm.kge.settings import Exchange

ENTITIES = "entity_representations.0._embeddings.weight"
RELATIONS = "relation_representations.0._embeddings.weight"
SCALE = "interaction.modulus_weight"
ONE = {
    ENTITIES: torch.tensor([[9.0, 9.0], [1.0, 2.0], [3.0, 4.0]]),
    RELATIONS: torch.tensor([[10.0, 20.0]]),
    SCALE: torch.tensor(1.0),
}
OTHER = {
    ENTITIES: torch.tensor([[-9.0, -9.0], [3.0, 0.0], [5.0, -4.0]]),
    RELATIONS: torch.tensor([[30.0, -20.0]]),
    SCALE: torch.tensor(2.0),
}
ITEMS_MEAN, RELATIONS_MEAN = [[2.0, 1.0], [4.0, 0.0]], [[20.0, 0.0]]


@pytest.mark.parametrize(
    ("exchange", "expected"),
    [
        ("isolation", {}),
        ("fede", {ENTITIES: ITEMS_MEAN, SCALE: 1.5}),
        ("fedr", {RELATIONS: RELATIONS_MEAN, SCALE: 1.5}),
        ("fedavg", {ENTITIES: ITEMS_MEAN, RELATIONS: RELATIONS_MEAN, SCALE: 1.5}),
    ],
)
def test_means_of_two_clients_by_hand(exchange: Exchange, expected: dict[str, object]) -> None:
    sent = [shared_part(tables, exchange) for tables in (ONE, OTHER)]
    mean = TableMean().aggregate([Update(adapter=tables) for tables in sent], sent[0])
    assert {name: table.tolist() for name, table in mean.items()} == expected


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_the_person_stays_and_nothing_is_lost(exchange: Exchange) -> None:
    shared, local = shared_part(ONE, exchange), local_part(ONE, exchange)
    for name, table in ONE.items():
        parts = [part for part in (local.get(name), shared.get(name)) if part is not None]
        whole = torch.cat(parts) if table.dim() else parts[0]
        assert torch.equal(whole, table)
    assert torch.equal(local[ENTITIES][0], ONE[ENTITIES][0])
    assert not any((part == 9.0).any() for part in shared.values())
    # Copies: what is sent does not change when its sender trains on.
    assert all(part.data_ptr() != ONE[name].data_ptr() for name, part in shared.items())


@given(count=st.integers(1, 40), value=st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_the_mean_of_equal_tables_is_that_table(count: int, value: float) -> None:
    table = torch.full((2, 3), value)
    mean = TableMean().aggregate([Update(adapter={"t": table})] * count, {"t": table})
    assert torch.equal(mean["t"], table)


def _models() -> list[Model]:
    transe = KBGAT.stage("transe", None).model(ring(), 0)
    attention = KBGAT.stage("attention", transe).model(ring(), 0).eval()
    return [
        HAKE.untrained(ring(), 0),
        transe,
        attention,
        KBGAT.stage("decoder", attention).model(ring(), 0),
    ]


@pytest.mark.parametrize(
    ("place", "entities", "relations", "network"),
    [(0, 2, 3, 2), (1, 1, 1, 0), (2, 1, 1, 10), (3, 0, 0, 4)],
)
def test_tables_of_real_models_are_distinguished_by_their_rows(
    place: int, entities: int, relations: int, network: int
) -> None:
    tables = model_tables(_models()[place])
    kinds = [kind_of(name) for name in tables]
    assert [kinds.count(kind) for kind in ("entities", "relations", "network")] == [
        entities,
        relations,
        network,
    ]
    for name, table in tables.items():
        rows = {"entities": 12, "relations": 2}.get(kind_of(name))
        assert rows is None or len(table) == rows


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_a_model_takes_both_parts_back(exchange: Exchange) -> None:
    one, other = (HAKE.untrained(ring(), 0) for _ in range(2))
    with torch.no_grad():
        for number, table in enumerate(model_tables(one).values()):
            table.fill_(number + 0.5)
    tables = model_tables(one)
    load_tables(
        other,
        shared=shared_part(tables, exchange),
        local=local_part(tables, exchange),
        exchange=exchange,
    )
    for name, table in model_tables(other).items():
        assert torch.equal(table, tables[name])


def test_a_mean_of_turns_is_a_turn_again() -> None:
    model = Rotate(dim=4).untrained(ring(), 0)
    shared = {name: t * 0.3 for name, t in shared_part(model_tables(model), "fedavg").items()}
    load_tables(model, shared=shared, local={}, exchange="fedavg")
    (turns,) = model.relation_representations
    assert torch.allclose(turns().abs(), torch.ones(2, 4))
