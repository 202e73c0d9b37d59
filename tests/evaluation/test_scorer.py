from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from pkgllm.corpora.catalogue import Catalogue, Item
from pkgllm.errors import DataError, LeakError, ModelError, PkgllmError
from pkgllm.evaluation.ranks import Ranks
from pkgllm.evaluation.scorer import (
    ClientQueries,
    RankedClient,
    Ranker,
    Scorer,
    candidate_mask,
    gold_columns,
    rank_queries,
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
    """Gives each client the scores of its name."""

    name = "fixed"

    def __init__(self, **rows: Sequence[float]) -> None:
        self.rows = rows

    def scores(self, queries: Sequence[ClientQueries]) -> NDArray[np.float64]:
        found = []
        for query in queries:
            if query.client not in self.rows:
                raise ModelError(f"client {query.client!r}: the prompt is too long")
            found.append(self.rows[query.client])
        return np.array(found)


class Shortcut(Fixed):
    """Has an opinion of its own about ranks, which nobody could get from its scores."""

    clients_at_once = 3

    def rank(
        self,
        queries: Sequence[ClientQueries],
        candidates: NDArray[np.bool_],
        gold: Sequence[NDArray[np.int64]],
        *,
        top_k: int,
    ) -> list[RankedClient | PkgllmError]:
        found: list[RankedClient | PkgllmError] = []
        for row, columns in zip(candidates, gold, strict=True):
            place = np.full(len(columns), 40 + top_k)
            found.append(RankedClient(Ranks(place, place), np.flatnonzero(row)[:top_k], num_fed=7))
        return found


QUERIES = (
    ClientQueries("p", True, graph_of("b"), ("d", "a")),
    ClientQueries("q", True, graph_of(), ("c",)),
)


def ranked(scorer: Scorer, top_k: int = 2) -> Sequence[RankedClient | PkgllmError]:
    return rank_queries(
        scorer,
        QUERIES,
        np.stack([candidate_mask(CATALOGUE, query) for query in QUERIES]),
        [gold_columns(CATALOGUE, query) for query in QUERIES],
        top_k=top_k,
    )


def sound(found: RankedClient | PkgllmError) -> RankedClient:
    assert isinstance(found, RankedClient)
    return found


def test_a_scorer_is_ranked_by_its_scores() -> None:
    p, q = map(sound, ranked(Fixed(p=[3, 9, 2, 1], q=[0, 1, 2, 3])))
    # Candidates a c d; d stands behind c, with a filtered; a stands before c.
    assert p.ranks.realistic.tolist() == [2, 1]
    assert p.top.tolist() == [0, 2]
    # Candidates a b c d; c stands behind d.
    assert q.ranks.realistic.tolist() == [2]
    assert q.top.tolist() == [3, 2]
    assert (p.num_fed, q.num_fed) == (0, 0)


def test_a_scorer_that_can_rank_is_asked_to() -> None:
    shortcut = Shortcut(p=[3, 9, 2, 1], q=[0, 1, 2, 3])
    assert isinstance(shortcut, Ranker)
    assert not isinstance(Fixed(), Ranker)
    p, q = map(sound, ranked(shortcut))
    assert p.ranks.realistic.tolist() == [42, 42]
    assert q.ranks.realistic.tolist() == [42]
    assert (p.top.tolist(), p.num_fed) == ([0, 2], 7)


def test_a_client_without_usable_scores_fails_alone() -> None:
    p, q = ranked(Fixed(p=[np.nan, 9, 2, 1], q=[0, 1, 2, 3]))
    assert isinstance(p, DataError)
    assert str(p) == "a candidate's score is NaN"
    assert sound(q).top.tolist() == [3, 2]
    p, q = ranked(Fixed(p=[3, 9, 2, 1]))
    assert sound(p).top.tolist() == [0, 2]
    assert isinstance(q, ModelError)
    assert str(q) == "client 'q': the prompt is too long"
    # Column b is no candidate of p.
    p, _ = ranked(Fixed(p=[3, np.nan, 2, 1], q=[0, 1, 2, 3]))
    assert sound(p).top.tolist() == [0, 2]


def test_a_leak_and_a_programmers_mistake_are_raised() -> None:
    class Leaking(Fixed):
        def scores(self, queries: Sequence[ClientQueries]) -> NDArray[np.float64]:
            raise LeakError("item 'a' stands in the prompt")

    with pytest.raises(LeakError, match="item 'a' stands in the prompt"):
        ranked(Leaking())
    with pytest.raises(ValueError, match=r"'fixed' must have shape \(1, 4\), got \(1, 2\)"):
        ranked(Fixed(p=[1, 2], q=[1, 2]))
    with pytest.raises(ValueError, match="argument 3 is shorter"):
        rank_queries(Fixed(p=[1] * 4), QUERIES, np.ones((2, 4), dtype=bool), [], top_k=1)
