from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from pkgllm.corpora.catalogue import Catalogue, Item
from pkgllm.errors import DataError
from pkgllm.evaluation.ranks import Ranks
from pkgllm.evaluation.scorer import (
    ClientQueries,
    RankedClient,
    Scorer,
    candidate_mask,
    gold_columns,
    rank_query,
)
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


class Fixed:
    """Gives every client the same scores."""

    name = "fixed"

    def __init__(self, *scores: float) -> None:
        self.row = np.array(scores)

    def scores(self, queries: Sequence[ClientQueries]) -> NDArray[np.float64]:
        return np.stack([self.row for _ in queries])


class Shortcut(Fixed):
    """Has an opinion of its own about ranks, which nobody could get from its scores."""

    def rank(
        self,
        query: ClientQueries,
        candidates: NDArray[np.bool_],
        gold: NDArray[np.int64],
        *,
        top_k: int,
    ) -> RankedClient:
        place = np.full(len(gold), 40 + top_k)
        return RankedClient(Ranks(place, place), np.flatnonzero(candidates)[:top_k], num_fed=7)


def ranked(scorer: Scorer, top_k: int = 2) -> RankedClient:
    query = ClientQueries("p", True, graph_of("b"), ("d", "a"))
    candidates = candidate_mask(CATALOGUE, query)
    return rank_query(scorer, query, candidates, gold_columns(CATALOGUE, query), top_k=top_k)


def test_a_scorer_is_ranked_by_its_scores() -> None:
    found = ranked(Fixed(3.0, 9.0, 2.0, 1.0))
    # Candidates a c d; d stands behind c, with a filtered; a stands before c.
    assert found.ranks.realistic.tolist() == [2, 1]
    assert found.top.tolist() == [0, 2]
    assert found.num_fed == 0


def test_a_scorer_that_can_rank_is_asked_to() -> None:
    found = ranked(Shortcut(3.0, 9.0, 2.0, 1.0))
    assert found.ranks.realistic.tolist() == [42, 42]
    assert (found.top.tolist(), found.num_fed) == ([0, 2], 7)


def test_unusable_scores_are_refused() -> None:
    with pytest.raises(DataError, match="a candidate's score is NaN"):
        ranked(Fixed(np.nan, 9.0, 2.0, 1.0))
    with pytest.raises(ValueError, match=r"'fixed' must have shape \(1, 4\), got \(1, 2\)"):
        ranked(Fixed(1.0, 2.0))
    assert ranked(Fixed(3.0, np.nan, 2.0, 1.0)).top.tolist() == [0, 2]
