import ir_measures
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from ir_measures import RR, R

from pkgllm.evaluation.metrics import METRICS, hits_at_k
from pkgllm.evaluation.ranks import rank_gold


def test_metrics_of_a_case_done_by_hand() -> None:
    ranks = np.array([1.0, 3.0, 10.5, 20.0])
    means = {name: float(metric(ranks).mean()) for name, metric in METRICS.items()}
    assert means["hits@1"] == 1 / 4
    assert means["hits@3"] == 2 / 4
    # 10.5 is not within 10.
    assert means["hits@10"] == 2 / 4
    assert means["mrr"] == (1 + 1 / 3 + 1 / 10.5 + 1 / 20) / 4


@given(st.lists(st.integers(2, 400), min_size=1).map(lambda doubled: np.array(doubled) / 2))
def test_hits_rise_with_k(ranks: np.ndarray[tuple[int], np.dtype[np.float64]]) -> None:
    assert (hits_at_k(ranks, k=3) <= hits_at_k(ranks, k=10)).all()


def test_metrics_equal_those_of_ir_measures() -> None:
    generator = np.random.default_rng(0)
    judged, run, ours = {}, {}, []
    for query in range(40):
        # Distinct scores: trec's tools break ties by name.
        scores = generator.permutation(30).astype(float)
        gold = int(generator.integers(30))
        ours.append(rank_gold(scores, np.ones(30, dtype=bool), np.array([gold])).realistic[0])
        judged[str(query)] = {str(gold): 1}
        run[str(query)] = {str(column): float(score) for column, score in enumerate(scores)}
    expected = ir_measures.calc_aggregate([RR, R @ 1, R @ 3, R @ 10], judged, run)
    ranks = np.array(ours)
    for name, measure in {"hits@1": R @ 1, "hits@3": R @ 3, "hits@10": R @ 10, "mrr": RR}.items():
        assert np.isclose(METRICS[name](ranks).mean(), expected[measure])
