import numpy as np
import pytest
from numpy.typing import NDArray

from helpers.embedded_letters import CATALOGUE, graph_of
from pkgllm.corpora.catalogue import Catalogue, Item
from pkgllm.errors import DataError
from pkgllm.kge.integer_triples import IntegerTriples
from pkgllm.kge.preference_graph import make_preference_graph


def labelled(liked: dict[str, str], disliked: dict[str, str]) -> set[tuple[str, str, str]]:
    graphs = [
        graph_of(owner, liked=liked[owner], disliked=disliked.get(owner, "")) for owner in liked
    ]
    graph = make_preference_graph(CATALOGUE, graphs)
    names = [f"person/{number}" for number in range(len(graph.persons))]
    names += [f"item/{item.id}" for item in graph.catalogue]
    names += [f"{kind}/{value}" for kind, value in graph.values]
    relations = list(graph.relations)
    assert len(names) == graph.triples.num_entities
    return {
        (names[head], relations[relation], names[tail])
        for head, relation, tail in graph.triples.triples.tolist()
    }


def test_the_graph_joins_what_clients_say_and_what_is_public() -> None:
    triples = labelled({"zoe": "ab", "ann": "b"}, {"ann": "c"})
    personal = {triple for triple in triples if triple[0].startswith("person/")}
    # Persons are numbered in the order of their ids.
    assert personal == {
        ("person/0", "liked", "item/b"),
        ("person/0", "disliked", "item/c"),
        ("person/1", "liked", "item/a"),
        ("person/1", "liked", "item/b"),
    }
    assert triples - personal == {
        (f"item/{item.id}", relation, f"{'genre' if relation == 'genre' else 'credit'}/{value}")
        for item in CATALOGUE
        for relation, values in item.facts.items()
        for value in values
    }


def test_every_item_is_an_entity_and_a_value_is_one_whatever_its_relation() -> None:
    catalogue = Catalogue(
        [
            Item("1", "Bare"),
            Item("2", "Rich", {"star": ("Kim",), "director": ("Kim", "Lee"), "genre": ("Kim",)}),
        ]
    )
    joined = make_preference_graph(catalogue, [graph_of("p"), graph_of("q", liked=["1"])])
    assert joined.items.tolist() == [2, 3]
    assert joined.triples.num_entities == 2 + 2 + 3
    assert set(joined.values) == {("credit", "Kim"), ("credit", "Lee"), ("genre", "Kim")}
    # An entity for a client that says nothing yet, and relations as far as they are used.
    assert joined.persons == {"p": 0, "q": 1}
    assert set(joined.relations) == {"liked", "star", "director", "genre"}


def test_facts_come_as_numbers_and_what_is_unknown_is_left_out() -> None:
    joined = make_preference_graph(CATALOGUE, [graph_of("p", liked="a")])
    graph = graph_of("someone", liked="bz", disliked="c")
    assert joined.facts(graph).tolist() == [[joined.relations["liked"], int(joined.items[1])]]
    assert joined.facts(graph_of("someone")).shape == (0, 2)


def test_one_client_is_enough() -> None:
    joined = make_preference_graph(CATALOGUE, [graph_of("p", liked="a")])
    assert joined.persons == {"p": 0}


def test_without_a_like_there_is_nothing_to_learn() -> None:
    with pytest.raises(DataError, match="of 1 clients must hold a liked one, got none"):
        make_preference_graph(CATALOGUE, [graph_of("p", disliked="a")])
    with pytest.raises(DataError, match="of 0 clients must hold a liked one"):
        make_preference_graph(CATALOGUE, [])


def test_a_client_with_two_graphs_is_refused() -> None:
    with pytest.raises(DataError, match="got 2 graphs of 1 clients"):
        make_preference_graph(CATALOGUE, [graph_of("p", liked="a"), graph_of("p", liked="b")])


def test_a_training_fact_about_a_stranger_is_refused() -> None:
    with pytest.raises(DataError, match="client 'p': the item 'z' is not in the catalogue"):
        make_preference_graph(CATALOGUE, [graph_of("p", liked="az")])


def test_no_triple_is_an_error() -> None:
    with pytest.raises(DataError, match="at least one triple to learn from, got none"):
        IntegerTriples(np.empty((0, 3), dtype=np.int64), num_entities=1, num_relations=1)


@pytest.mark.parametrize(
    ("triple", "message"),
    [
        ([0, 2, 1], "every relation of a triple must be from 0 to 1, got 2 to 2"),
        ([0, -1, 1], "every relation of a triple must be from 0 to 1, got -1 to -1"),
        ([3, 0, 1], "every entity of a triple must be from 0 to 2, got 1 to 3"),
    ],
)
def test_triples_out_of_range_are_refused(triple: list[int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        IntegerTriples(np.array([triple]), num_entities=3, num_relations=2)


@pytest.mark.parametrize("wrong", [np.zeros((2, 2), dtype=np.int64), np.zeros((2, 3))])
def test_triples_are_integers_in_three_columns(wrong: NDArray[np.int64]) -> None:
    with pytest.raises(ValueError, match=r"integers of shape \(n, 3\), got"):
        IntegerTriples(wrong, num_entities=1, num_relations=1)


def test_the_digest_knows_triples_and_counts_but_not_their_order() -> None:
    some = np.array([[0, 0, 1], [1, 0, 2]])
    one = IntegerTriples(some, num_entities=3, num_relations=1)
    assert one.digest() == IntegerTriples(some[::-1], num_entities=3, num_relations=1).digest()
    assert one.digest() != IntegerTriples(some, num_entities=4, num_relations=1).digest()
    assert one.digest() != IntegerTriples(some[:1], num_entities=3, num_relations=1).digest()
