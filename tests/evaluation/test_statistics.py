import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import bootstrap  # type: ignore[import-untyped]  # scipy ships no types

from pkgllm.evaluation import statistics
from pkgllm.evaluation.statistics import bootstrap_ratios, ratio, spread_over_clients


def test_resamples_equal_a_plain_loop_over_the_same_draws() -> None:
    sums = np.array([[1.0, 3.0], [0.0, 2.0], [4.0, 1.0]])
    counts = np.array([2.0, 5.0, 4.0])
    found = bootstrap_ratios(sums, counts, resamples=50, generator=np.random.default_rng(3))
    drawn = np.random.default_rng(3).integers(3, size=(50, 3))
    expected = np.array([sums[row].sum(axis=0) / counts[row].sum() for row in drawn])
    assert found.resampled is not None
    np.testing.assert_allclose(found.resampled, expected)
    # 1 + 0 + 4 = 5 and 3 + 2 + 1 = 6, both over 2 + 5 + 4 = 11.
    np.testing.assert_allclose(found.values, [5 / 11, 6 / 11])
    estimate = found.estimate(1)
    assert estimate.low == np.quantile(expected[:, 1], 0.025)
    assert estimate.high == pytest.approx(np.quantile(expected[:, 1], 0.975))


def test_the_blocks_that_bound_memory_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    sums, counts = np.random.default_rng(0).random((7, 2)), np.full(7, 3.0)

    def resampled() -> list[list[float]]:
        generator = np.random.default_rng(1)
        found = bootstrap_ratios(sums, counts, resamples=100, generator=generator).resampled
        assert found is not None
        return [[float(value) for value in row] for row in found]

    whole = resampled()
    monkeypatch.setattr(statistics, "_BLOCK_COUNTS", 7 * 9)
    assert resampled() == whole


def test_the_interval_of_a_mean_is_that_of_scipy() -> None:
    values = np.random.default_rng(5).exponential(size=80)
    ours = bootstrap_ratios(
        values[:, None], np.ones(80), resamples=20_000, generator=np.random.default_rng(0)
    ).estimate(0)
    theirs = bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=1
    ).confidence_interval
    # A percentile of 20,000 resamples has a standard error of .019 standard errors of the mean:
    # sqrt(.025 * .975 / 20000) over .058, the density of the normal at its 2.5 % point.
    tolerance = 5 * 0.019 * values.std() / np.sqrt(80)
    assert ours.value == pytest.approx(values.mean())
    assert ours.low == pytest.approx(theirs.low, abs=tolerance)
    assert ours.high == pytest.approx(theirs.high, abs=tolerance)


def test_clusters_widen_the_interval_that_queries_alone_would_give() -> None:
    # Ten clients, all ten queries of a client alike: the information is that of ten values.
    by_client = np.array([1.0, 0.0] * 5)
    clustered = bootstrap_ratios(
        10 * by_client[:, None],
        np.full(10, 10.0),
        resamples=2000,
        generator=np.random.default_rng(0),
    ).estimate(0)
    flat = bootstrap_ratios(
        np.repeat(by_client, 10)[:, None],
        np.ones(100),
        resamples=2000,
        generator=np.random.default_rng(0),
    ).estimate(0)
    assert clustered.value == flat.value == 0.5
    assert clustered.low is not None
    assert clustered.high is not None
    assert flat.low is not None
    assert flat.high is not None
    # The standard error is sqrt(10) = 3.2 times larger.
    assert 2.5 < (clustered.high - clustered.low) / (flat.high - flat.low) < 4


@settings(max_examples=25)
@given(
    st.lists(st.tuples(st.floats(0, 5), st.integers(1, 9)), min_size=2, max_size=20),
    st.floats(-1, 1),
)
def test_paired_columns_share_their_resamples(
    clients: list[tuple[float, int]], shift: float
) -> None:
    # The second column is the first plus a constant for each query, so the difference never varies.
    counts = np.array([float(count) for _, count in clients])
    first = np.array([total for total, _ in clients])
    found = bootstrap_ratios(
        np.column_stack([first + shift * counts, first]),
        counts,
        resamples=100,
        generator=np.random.default_rng(0),
    ).difference(0, 1)
    assert [found.value, found.low, found.high] == pytest.approx([shift] * 3, abs=1e-9)


def test_columns_may_have_counts_of_their_own() -> None:
    generator = np.random.default_rng(2)
    sums = generator.random((9, 3))
    counts = generator.integers(1, 6, size=(9, 3)).astype(float)
    together = bootstrap_ratios(sums, counts, resamples=200, generator=np.random.default_rng(4))
    for column in range(3):
        alone = bootstrap_ratios(
            sums[:, [column]],
            counts[:, column],
            resamples=200,
            generator=np.random.default_rng(4),
        )
        assert together.values[column] == pytest.approx(alone.values[0])
        assert together.resampled is not None
        assert alone.resampled is not None
        np.testing.assert_allclose(together.resampled[:, column], alone.resampled[:, 0])
    np.testing.assert_allclose(together.values, sums.sum(axis=0) / counts.sum(axis=0))


def test_a_resample_of_clients_with_nothing_to_count_is_zero() -> None:
    # Of two clients one counts nothing in the first column, and nobody in the second.
    found = bootstrap_ratios(
        np.array([[2.0, 0.0], [0.0, 0.0]]),
        np.array([[4.0, 0.0], [0.0, 0.0]]),
        resamples=100,
        generator=np.random.default_rng(0),
    )
    assert found.values.tolist() == [0.5, 0.0]
    assert found.resampled is not None
    assert set(found.resampled[:, 0]) == {0.5, 0.0}
    assert set(found.resampled[:, 1]) == {0.0}


def test_nothing_over_nothing_is_zero() -> None:
    upper, lower = np.array([[1.0, 0.0], [3.0, 0.0]]), np.array([[2.0], [0.0]])
    assert ratio(upper[:1], lower[:1]).tolist() == [[0.5, 0.0]]
    assert ratio(np.zeros((1, 2)), lower[1:]).tolist() == [[0.0, 0.0]]


def test_a_spread_done_by_hand() -> None:
    # Eleven clients: percentiles fall on clients, and a tenth of them is rounded up to two.
    values = np.array([10.0, 0.0, 2.0, 1.0, 3.0, 4.0, 9.0, 5.0, 6.0, 8.0, 7.0])
    found = spread_over_clients(values)
    assert (found.p10, found.p25, found.p50, found.p75, found.p90) == (1, 2.5, 5, 7.5, 9)
    assert found.worst_decile == 0.5
    # Squares of -5 to 5 sum to 110, over ten.
    assert found.sd == pytest.approx(np.sqrt(11))


def test_a_spread_of_one_client_has_no_deviation_and_of_none_is_refused() -> None:
    found = spread_over_clients(np.array([0.25]))
    assert (found.p10, found.p90, found.worst_decile, found.sd) == (0.25, 0.25, 0.25, None)
    with pytest.raises(ValueError, match="at least one client"):
        spread_over_clients(np.array([]))


@given(st.lists(st.floats(0, 1), min_size=2, max_size=60).map(np.array))
def test_a_spread_is_in_order_whatever_the_order_of_clients(
    values: np.ndarray[tuple[int], np.dtype[np.float64]],
) -> None:
    found = spread_over_clients(values)
    percentiles = [found.p10, found.p25, found.p50, found.p75, found.p90]
    # Interpolation and means of equal values may differ from them by rounding.
    assert (np.diff(percentiles) >= -1e-12).all()
    assert values.min() - 1e-12 <= found.worst_decile <= np.mean(values) + 1e-12
    assert spread_over_clients(np.sort(values)[::-1]).worst_decile == pytest.approx(
        found.worst_decile
    )
    assert found.p50 == pytest.approx(np.median(values))


def test_a_single_client_has_no_interval() -> None:
    found = bootstrap_ratios(
        np.array([[1.0, 0.5]]), np.array([4.0]), resamples=100, generator=np.random.default_rng(0)
    )
    assert (found.estimate(0).value, found.estimate(0).low, found.estimate(0).high) == (
        0.25,
        None,
        None,
    )
    assert found.difference(0, 1).value == 0.125
    assert found.difference(0, 1).low is None


@pytest.mark.parametrize(
    ("sums", "counts", "resamples", "message"),
    [
        (np.zeros((0, 1)), np.zeros(0), 10, "at least one client"),
        (np.zeros((2, 1)), np.ones(3), 10, r"got \(2, 1\) and \(3,\)"),
        (np.zeros((2, 2)), np.ones((2, 1)), 10, r"got \(2, 2\) and \(2, 1\)"),
        (np.zeros(2), np.ones(2), 10, r"got \(2,\) and \(2,\)"),
        (np.zeros((2, 1)), np.array([1.0, -1.0]), 10, "counts must not be negative, got -1"),
        (np.zeros((2, 1)), np.array([1.0, np.nan]), 10, "counts must not be negative, got nan"),
        (np.ones((2, 1)), np.array([1.0, 0.0]), 10, "a sum over a count of 0 must be 0 itself"),
        (np.zeros((2, 1)), np.ones(2), 0, "resamples must be at least 1, got 0"),
    ],
)
def test_wrong_arguments_are_refused(
    sums: np.ndarray[tuple[int, int], np.dtype[np.float64]],
    counts: np.ndarray[tuple[int], np.dtype[np.float64]],
    resamples: int,
    message: str,
) -> None:
    with pytest.raises(ValueError, match=message):
        bootstrap_ratios(sums, counts, resamples=resamples, generator=np.random.default_rng(0))
