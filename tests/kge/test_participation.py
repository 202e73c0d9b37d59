import pytest

from pkgllm.kge.participation import EmbeddingParticipation, below_isolation


def test_coverage_is_the_share_that_ever_took_part() -> None:
    took_part = EmbeddingParticipation({"a": 3, "b": 0})
    assert took_part.coverage == 0.5
    assert took_part.summary() == {
        "coverage": 0.5,
        "mean_rounds": 1.5,
        "fewest_rounds": 0,
        "most_rounds": 3,
    }


def test_a_run_below_isolation_is_told_of_by_the_metric_asked_for() -> None:
    together, alone = {"mrr": 0.1, "hits_at_10": 0.3}, {"mrr": 0.1, "hits_at_10": 0.4}
    assert below_isolation(together, alone) is None
    assert below_isolation(together, alone, metric="hits_at_10") == (
        "below isolation on validation: hits_at_10 0.3000, alone 0.4000"
    )
    assert below_isolation(alone, together, metric="hits_at_10") is None


@pytest.mark.parametrize("lacking", [{}, {"mrr": float("nan")}])
def test_a_metric_that_is_not_there_is_named(lacking: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="isolation must hold a number for 'mrr'"):
        below_isolation({"mrr": 0.1}, lacking)
