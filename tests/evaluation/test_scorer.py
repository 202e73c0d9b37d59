import numpy as np
import pytest

from pkgllm.corpora.catalogue import Catalogue, Item
from pkgllm.errors import DataError
from pkgllm.evaluation.scorer import ClientQueries, candidate_mask, gold_columns
from pkgllm.graph.personal_graph import Fact, Moment, PersonalGraph, Provenance

CATALOGUE = Catalogue([Item(letter, letter.upper()) for letter in "abcd"])


def graph_of(*tails: str) -> PersonalGraph:
    said = Provenance("own_answer", "conversation/1")
    return PersonalGraph(
        "p", tuple(Fact("seen", t, t.upper(), Moment(0, i), said) for i, t in enumerate(tails))
    )


def test_the_candidates_are_the_catalogue_minus_the_visible_graph() -> None:
    queries = ClientQueries("p", True, graph_of("b", "gone from the catalogue"), ("d", "a"))
    assert candidate_mask(CATALOGUE, queries).tolist() == [True, False, True, True]
    assert gold_columns(CATALOGUE, queries).tolist() == [3, 0]


def test_an_empty_graph_leaves_every_item() -> None:
    mask = candidate_mask(CATALOGUE, ClientQueries("p", True, graph_of(), ("a",)))
    assert np.array_equal(mask, np.ones(4, dtype=bool))


@pytest.mark.parametrize(
    ("visible", "held_out", "message"),
    [
        ("b", ("b",), "client 'p': the held-out item 'b' stands in the visible graph"),
        ("b", ("x",), "client 'p': the held-out item 'x' is not in the catalogue of 4 items"),
        ("abcd", ("a",), "client 'p': the visible graph holds the whole catalogue of 4 items"),
        ("b", (), "client 'p': at least one liked item must be held out, got none"),
        ("b", ("a", "a"), "client 'p': held-out items must be distinct"),
    ],
)
def test_what_cannot_be_asked_names_the_client(
    visible: str, held_out: tuple[str, ...], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        candidate_mask(CATALOGUE, ClientQueries("p", True, graph_of(*visible), held_out))
