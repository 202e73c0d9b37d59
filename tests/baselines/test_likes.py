import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pkgllm.baselines.likes import TrainingLikes
from pkgllm.corpora.catalogue import Catalogue, Item
from pkgllm.errors import DataError
from pkgllm.graph.personal_graph import Fact, Moment, PersonalGraph, Provenance

CATALOGUE = Catalogue([Item(letter, letter.upper()) for letter in "abcd"])
SAID = Provenance("own_answer", "conversation/1")


def test_a_row_for_each_client_and_a_column_for_each_item() -> None:
    likes = TrainingLikes(CATALOGUE, [["c", "a"], [], ("c",)])
    assert [columns.tolist() for columns in likes.columns] == [[0, 2], [], [2]]
    assert likes.matrix().tolist() == [[1, 0, 1, 0], [0, 0, 0, 0], [0, 0, 1, 0]]
    assert likes.counts.tolist() == [1, 0, 2, 0]


def test_an_item_counts_once_for_a_client() -> None:
    likes = TrainingLikes(CATALOGUE, [["b", "b"]])
    assert [columns.tolist() for columns in likes.columns] == [[1]]
    assert likes.counts.tolist() == [0, 1, 0, 0]


@given(st.lists(st.lists(st.sampled_from("abcd"))))
def test_counts_are_the_column_sums(clients: list[list[str]]) -> None:
    likes = TrainingLikes(CATALOGUE, clients)
    matrix = likes.matrix()
    assert matrix.shape == (len(clients), 4)
    assert np.array_equal(matrix.sum(axis=0), likes.counts)
    for row, liked in zip(matrix, clients, strict=True):
        assert {CATALOGUE.items[column].id for column in np.flatnonzero(row)} == set(liked)


def test_only_likes_of_the_catalogue_have_columns() -> None:
    graph = PersonalGraph(
        "p",
        (
            Fact("liked", "d", "D", Moment(0, 0), SAID),
            Fact("disliked", "a", "A", Moment(0, 1), SAID),
            Fact("seen", "c", "C", Moment(0, 2), SAID),
            Fact("liked", "from elsewhere", "E", Moment(0, 3), SAID),
            Fact("liked", "b", "B", Moment(0, 4), SAID),
        ),
    )
    likes = TrainingLikes(CATALOGUE, [])
    assert likes.liked_columns(graph).tolist() == [1, 3]
    assert likes.liked_columns(PersonalGraph("q", ())).tolist() == []


def test_a_like_outside_the_catalogue_is_refused() -> None:
    with pytest.raises(DataError) as caught:
        TrainingLikes(CATALOGUE, [["a"], ["a", "x"]])
    assert str(caught.value) == (
        "training likes: the liked item 'x' is not in the catalogue of 4 items; take both from one "
        "corpus"
    )
