from collections.abc import Sequence
from itertools import permutations

import ir_measures
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ir_measures import RR, R, Success, nDCG
from numpy.typing import NDArray

from pkgllm.evaluation.metrics import (
    METRICS,
    adjusted_mrr,
    chance_reciprocal_rank,
    hits_at_k,
    ndcg_at_k,
    reciprocal_rank,
)
from pkgllm.evaluation.ranks import rank_gold


def micro(name: str, ranks: Sequence[float], num_ranked: Sequence[int]) -> float:
    terms = METRICS[name](np.array(ranks), np.array(num_ranked))
    return float(terms.upper.sum() / terms.lower.sum())


def test_metrics_of_a_case_done_by_hand() -> None:
    ranks, num_ranked = [1.0, 3.0, 10.5, 20.0], [100] * 4
    assert micro("hits@1", ranks, num_ranked) == 1 / 4
    assert micro("hits@3", ranks, num_ranked) == 2 / 4
    # 10.5 is not within 10.
    assert micro("hits@10", ranks, num_ranked) == 2 / 4
    assert micro("hits@50", ranks, num_ranked) == 1
    assert micro("mrr", ranks, num_ranked) == (1 + 1 / 3 + 1 / 10.5 + 1 / 20) / 4
    # log2(1 + 1) = 1 and log2(1 + 3) = 2; the others stand below the tenth place.
    assert micro("ndcg@10", ranks, num_ranked) == (1 + 1 / 2) / 4


@pytest.mark.parametrize(
    ("name", "k"), [("hits@1", 1), ("hits@3", 3), ("hits@10", 10), ("hits@50", 50), ("ndcg@10", 10)]
)
def test_the_cut_is_after_place_k(name: str, k: int) -> None:
    assert micro(name, [k], [100]) == pytest.approx(1 / np.log2(1 + k) if name[0] == "n" else 1)
    assert micro(name, [k + 0.5], [100]) == 0


def test_adjusted_mrr_of_a_case_done_by_hand() -> None:
    # E is 3/4 for two items and (1 + 1/2 + 1/3 + 1/4) / 4 = 25/48 for four.
    expected = ((1 + 1 / 3) - (3 / 4 + 25 / 48)) / (2 - (3 / 4 + 25 / 48))
    assert micro("adjusted_mrr", [1.0, 3.0], [2, 4]) == pytest.approx(expected)
    assert micro("adjusted_mrr", [1.0, 1.0, 1.0], [2, 4, 7000]) == 1
    # Last of two: (1/2 - 3/4) / (1 - 3/4).
    assert micro("adjusted_mrr", [2.0], [2]) == -1


@pytest.mark.parametrize("num_ranked", range(1, 8))
def test_chance_is_the_mean_over_all_orders(num_ranked: int) -> None:
    places = [order.index(0) + 1 for order in permutations(range(num_ranked))]
    found = chance_reciprocal_rank(np.array([num_ranked]))
    assert found[0] == pytest.approx(np.mean([1 / place for place in places]))


def test_adjusted_mrr_is_zero_over_all_orders_of_unlike_queries() -> None:
    ranks, num_ranked = [], []
    # Every pair of an order of three items and an order of four.
    for three in permutations(range(3)):
        for four in permutations(range(4)):
            ranks += [three.index(0) + 1.0, four.index(0) + 1.0]
            num_ranked += [3, 4]
    assert micro("adjusted_mrr", ranks, num_ranked) == pytest.approx(0, abs=1e-12)


def test_a_random_scorer_is_within_the_noise_of_zero() -> None:
    generator = np.random.default_rng(0)
    upper, lower = [], []
    for _ in range(3000):
        gold = generator.choice(60, size=3, replace=False)
        candidates = np.ones(60, dtype=bool)
        candidates[np.setdiff1d(np.arange(20), gold)] = False
        ranks = rank_gold(generator.normal(size=60), candidates, gold).realistic
        terms = adjusted_mrr(ranks, np.full(3, candidates.sum() - 3 + 1))
        upper.append(terms.upper.sum())
        lower.append(terms.lower.sum())
    standard_error = np.std(upper) / np.sqrt(len(upper)) / np.mean(lower)
    assert abs(np.sum(upper) / np.sum(lower)) < 4 * standard_error
    # Tight enough to tell: MRR in a random order of some forty items is about .1.
    assert standard_error < 0.01


def test_one_item_alone_adds_to_neither_sum() -> None:
    terms = adjusted_mrr(np.array([1.0, 2.0]), np.array([1, 4]))
    assert (terms.upper[0], terms.lower[0]) == (0, 0)
    assert micro("adjusted_mrr", [1.0, 2.0], [1, 4]) == micro("adjusted_mrr", [2.0], [4])


halves = st.lists(st.integers(2, 400), min_size=1).map(lambda doubled: np.array(doubled) / 2)


@given(halves)
def test_metrics_stay_in_their_bounds(ranks: NDArray[np.float64]) -> None:
    num_ranked = np.full(len(ranks), 200)
    for name, metric in METRICS.items():
        terms = metric(ranks, num_ranked)
        assert (terms.upper <= terms.lower).all()
        assert (terms.lower > 0).all()
        if name != "adjusted_mrr":
            assert (terms.upper >= 0).all()
            assert (terms.lower == 1).all()
    assert (hits_at_k(ranks, k=3) <= hits_at_k(ranks, k=10)).all()
    assert (ndcg_at_k(ranks, k=10) <= hits_at_k(ranks, k=10)).all()
    assert (reciprocal_rank(ranks) <= 1).all()


@given(halves, st.integers(0, 100))
def test_a_better_rank_is_never_worse(ranks: NDArray[np.float64], place: int) -> None:
    num_ranked = np.full(len(ranks), 200)
    better = ranks.copy()
    better[place % len(ranks)] = max(1, better[place % len(ranks)] - 1.5)
    for name in METRICS:
        assert micro(name, list(better), list(num_ranked)) >= micro(
            name, list(ranks), list(num_ranked)
        )


def test_metrics_equal_those_of_ir_measures() -> None:
    generator = np.random.default_rng(0)
    judged, run, ours = {}, {}, []
    for query in range(60):
        # Distinct scores: trec's tools break ties by name.
        scores = generator.permutation(80).astype(float)
        gold = int(generator.integers(80))
        ours.append(rank_gold(scores, np.ones(80, dtype=bool), np.array([gold])).realistic[0])
        judged[str(query)] = {str(gold): 1}
        run[str(query)] = {str(column): float(score) for column, score in enumerate(scores)}
    measures: dict[str, list[ir_measures.Measure]] = {
        "hits@1": [R @ 1, Success @ 1],
        "hits@3": [R @ 3, Success @ 3],
        "hits@10": [R @ 10, Success @ 10],
        "hits@50": [R @ 50, Success @ 50],
        "mrr": [RR],
        "ndcg@10": [nDCG @ 10],
    }
    assert set(measures) == set(METRICS) - {"adjusted_mrr"}
    wanted = [measure for group in measures.values() for measure in group]
    expected = ir_measures.calc_aggregate(wanted, judged, run)
    for name, group in measures.items():
        for measure in group:
            assert micro(name, ours, [80] * 60) == pytest.approx(expected[measure])
    # No measure is trivial here.
    assert all(0 < value < 1 for value in expected.values())
