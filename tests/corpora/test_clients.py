from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pkgllm.corpora.catalogue import Catalogue, Item
from pkgllm.corpora.clients import Corpus, take_part, unseen_clients
from pkgllm.errors import DataError
from pkgllm.graph.personal_graph import Fact, Moment, PersonalGraph, Provenance

SAID = Provenance("own_answer", "conversation/1")


def corpus_of(liked_by_client: dict[str, int]) -> Corpus:
    """Make clients that like some films and dislike one."""
    catalogue = Catalogue([Item(str(film), f"Film {film}") for film in range(20)])
    graphs = tuple(
        PersonalGraph(
            client,
            (
                *(
                    Fact("liked", str(film), f"Film {film}", Moment(0, film), SAID)
                    for film in range(num_liked)
                ),
                Fact("disliked", "19", "Film 19", Moment(0, 19), SAID),
            ),
        )
        for client, num_liked in liked_by_client.items()
    )
    return Corpus("invented", catalogue, graphs, {})


def clients(graphs: Sequence[PersonalGraph]) -> list[str]:
    return [graph.owner for graph in graphs]


def test_a_corpus_keeps_its_clients_sorted() -> None:
    assert clients(corpus_of({"b": 1, "a": 1, "10": 1, "9": 1}).graphs) == ["10", "9", "a", "b"]


def test_those_with_too_few_likes_are_left_out_and_told() -> None:
    corpus = corpus_of({"a": 5, "b": 4, "c": 0, "d": 6})
    kept, left_out = take_part(corpus, min_liked=5, below_min_liked="leave_out")
    assert clients(kept.graphs) == ["a", "d"]
    assert left_out.clients == ("b", "c")
    assert left_out.min_liked == 5
    assert kept.catalogue is corpus.catalogue


def test_nobody_is_left_out_where_all_have_enough() -> None:
    corpus = corpus_of({"a": 1, "b": 2})
    kept, left_out = take_part(corpus, min_liked=1, below_min_liked="refuse")
    assert kept == corpus
    assert left_out.clients == ()


def test_refusing_names_the_first_client_the_counts_and_the_key() -> None:
    with pytest.raises(
        DataError,
        match=r"invented: client b has 4 liked facts, and each client needs 5; 2 of 3 clients "
        r"have fewer: set clients\.below_min_liked: leave_out",
    ):
        take_part(corpus_of({"a": 5, "c": 0, "b": 4}), min_liked=5, below_min_liked="refuse")


def test_nobody_left_is_an_error() -> None:
    with pytest.raises(DataError, match=r"invented: no client has 3 liked facts, of 2 clients"):
        take_part(corpus_of({"a": 2, "b": 0}), min_liked=3, below_min_liked="leave_out")


owner_sets = st.sets(st.text(max_size=3), max_size=40)
shares = st.floats(0, 1, exclude_max=True)


@given(owner_sets, shares, st.integers(0, 1000))
def test_unseen_clients_are_some_and_never_all(owners: set[str], share: float, seed: int) -> None:
    unseen = unseen_clients(owners, share=share, seed=seed)
    assert unseen <= owners
    if share == 0 or len(owners) < 2:
        assert not unseen
    else:
        assert len(unseen) == min(max(1, round(share * len(owners))), len(owners) - 1)


@given(owner_sets, shares, st.integers(0, 1000))
def test_the_draw_depends_on_the_seed_and_not_on_the_order(
    owners: set[str], share: float, seed: int
) -> None:
    forth, back = sorted(owners), sorted(owners, reverse=True)
    assert unseen_clients(forth, share=share, seed=seed) == unseen_clients(
        back, share=share, seed=seed
    )


def test_other_seeds_draw_others_and_everyone_can_be_drawn() -> None:
    owners = [f"p{index}" for index in range(10)]
    draws = [unseen_clients(owners, share=0.2, seed=seed) for seed in range(100)]
    assert len(set(draws)) > 20
    assert frozenset().union(*draws) == frozenset(owners)


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_a_share_out_of_range_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match=rf"share must be from 0 to below 1, got {share}"):
        unseen_clients(["a", "b"], share=share, seed=0)
