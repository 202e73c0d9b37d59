import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pkgllm.evaluation.ranks import best_columns, rank_gold, worst_ranks


@st.composite
def ranking_cases(
    draw: st.DrawFn,
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.int64]]:
    # Few distinct scores, so that ties are the rule.
    scores = draw(st.lists(st.integers(-2, 2), min_size=1, max_size=12))
    mask = draw(st.lists(st.booleans(), min_size=len(scores), max_size=len(scores)))
    mask[draw(st.integers(0, len(mask) - 1))] = True
    columns = np.flatnonzero(mask).tolist()
    gold = draw(st.lists(st.sampled_from(columns), min_size=1, unique=True))
    return np.array(scores, dtype=float), np.array(mask), np.array(gold, dtype=np.int64)


def test_ranks_of_a_case_done_by_hand() -> None:
    #   column      0    1    2    3    4    5
    scores = np.array([0.9, 0.5, 0.5, 0.5, 0.7, 0.1])
    candidates = np.array([True, True, True, True, False, True])
    ranks = rank_gold(scores, candidates, np.array([1, 0, 5]))
    # Column 1 competes with 2, 3 (equal): gold 0 and 5 are filtered, 4 is no candidate. 1..3.
    # Column 0 is above 2, 3. Column 5 is below 2, 3.
    assert ranks.optimistic.tolist() == [1, 1, 3]
    assert ranks.pessimistic.tolist() == [3, 1, 3]
    assert ranks.realistic.tolist() == [2.0, 1.0, 3.0]


@given(ranking_cases())
def test_ranks_equal_the_definition_counted_one_by_one(
    case: tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.int64]],
) -> None:
    scores, candidates, gold = case
    ranks = rank_gold(scores, candidates, gold)
    for place, column in enumerate(gold):
        rivals = [
            score
            for other, score in enumerate(scores)
            if candidates[other] and other not in gold.tolist()
        ]
        higher = sum(score > scores[column] for score in rivals)
        equal = sum(score == scores[column] for score in rivals)
        assert ranks.optimistic[place] == 1 + higher
        assert ranks.pessimistic[place] == 1 + higher + equal
        assert ranks.realistic[place] == 1 + higher + equal / 2
        assert ranks.pessimistic[place] <= worst_ranks(candidates, gold).pessimistic[place]


def test_scores_within_the_tolerance_count_as_equal() -> None:
    #   column      0    1     2    3     4    5
    scores = np.array([5.0, 4.25, 4.0, 3.75, 3.5, -np.inf])
    ranks = rank_gold(scores, np.ones(6, dtype=bool), np.array([2]), tolerance=0.25)
    # Columns 1 and 3 lie just within: one is above in any case, and two may be.
    assert (ranks.optimistic.tolist(), ranks.pessimistic.tolist()) == ([2], [4])


@pytest.mark.parametrize("num_candidates", [1, 2, 7])
def test_a_constant_scorer_gets_the_middle_rank(num_candidates: int) -> None:
    candidates = np.ones(num_candidates, dtype=bool)
    ranks = rank_gold(np.zeros(num_candidates), candidates, np.array([0]))
    assert ranks.realistic.tolist() == [(num_candidates + 1) / 2]


@given(ranking_cases())
def test_scores_of_non_candidates_do_not_matter(
    case: tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.int64]],
) -> None:
    scores, candidates, gold = case
    other = np.where(candidates, scores, np.nan)
    assert (
        rank_gold(scores, candidates, gold).realistic.tolist()
        == rank_gold(other, candidates, gold).realistic.tolist()
    )


@pytest.mark.parametrize(
    ("scores", "candidates", "gold", "message"),
    [
        ([0.0, np.nan], [True, True], [0], r"must be numbers, got 1 NaN"),
        ([0.0, 1.0], [True, False], [1], r"must be candidates, got \[1\]"),
        ([0.0, 1.0], [True, True], [1, 1], r"must be distinct, got \[1, 1\]"),
        ([0.0, 1.0], [True], [0], r"got \(2,\) and \(1,\)"),
    ],
)
def test_what_cannot_be_ranked_is_refused(
    scores: list[float], candidates: list[bool], gold: list[int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        rank_gold(np.array(scores), np.array(candidates), np.array(gold))


def test_best_columns_skip_non_candidates_and_keep_column_order_among_equals() -> None:
    scores = np.array([0.5, 0.9, 0.5, 1.0, 0.1])
    candidates = np.array([True, True, True, False, True])
    assert best_columns(scores, candidates, 3).tolist() == [1, 0, 2]
    assert best_columns(scores, candidates, 10).tolist() == [1, 0, 2, 4]
