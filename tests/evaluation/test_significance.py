from fractions import Fraction
from itertools import product
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import permutation_test  # type: ignore[import-untyped]  # scipy ships no types

from pkgllm.evaluation import significance
from pkgllm.evaluation.significance import holm, permutation_p_values

Array = NDArray[np.float64]


def p_values(differences: Array, *, resamples: int = 10_000, seed: int = 0) -> Array:
    return permutation_p_values(
        differences, resamples=resamples, generator=np.random.default_rng(seed)
    )


def scipy_p_value(
    first: Array, second: Array, *, resamples: float = np.inf, seed: int = 1
) -> float:
    """Swap the two models within clients, which is what flipping a difference's sign does."""

    def mean_difference(one: Array, other: Array, axis: int) -> Array:
        difference: Array = one.mean(axis=axis) - other.mean(axis=axis)
        return difference

    found = permutation_test(
        (first, second),
        mean_difference,
        permutation_type="samples",
        vectorized=True,
        n_resamples=resamples,
        rng=seed,
    )
    return float(found.pvalue)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 9), st.integers(0, 2**32 - 1), st.floats(-1, 1))
def test_with_few_clients_p_is_that_of_scipy(num_clients: int, seed: int, shift: float) -> None:
    generator = np.random.default_rng(seed)
    first, second = generator.normal(size=(2, num_clients, 2))
    first[:, 0] += shift
    found = p_values(first - second)
    expected = [scipy_p_value(first[:, column], second[:, column]) for column in (0, 1)]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("shift", [0.0, 0.2, 0.35])
def test_with_many_clients_p_is_that_of_scipy(shift: float) -> None:
    first, second = np.random.default_rng(4).normal(size=(2, 80))
    first = first - first.mean() + second.mean() + shift
    ours = p_values((first - second)[:, None], resamples=20_000)[0]
    theirs = scipy_p_value(first, second, resamples=20_000)
    # Two independent shares of 20,000 draws; scipy doubles one tail, which doubles its error.
    error = np.sqrt((1 + 2) * max(ours, 1e-3) / 20_000)
    assert ours == pytest.approx(theirs, abs=5 * error)
    assert (ours < 0.05) == (shift == 0.35)


def test_resamples_equal_a_plain_loop_over_the_same_draws() -> None:
    differences = np.random.default_rng(2).normal([0.0, 0.2, 0.5], size=(30, 3))
    drawn = np.random.default_rng(7).integers(2, size=(200, 30))
    expected = []
    for column in differences.T:
        count = 1
        for flips in drawn:
            total = sum(
                -value if flip else value for value, flip in zip(column, flips, strict=True)
            )
            count += abs(total) >= abs(sum(column))
        expected.append(count / 201)
    found = p_values(differences, resamples=200, seed=7)
    assert found.tolist() == pytest.approx(expected)
    assert len(set(expected)) == 3


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.sampled_from([(1, 3), (-1, 3), (1, 7), (-1, 6), (1, 2), (0, 1)]), min_size=1, max_size=8
    )
)
def test_equal_sums_are_equal_however_they_round(parts: list[tuple[int, int]]) -> None:
    # Reciprocal ranks make ties between sums, which floats alone would break.
    exact = [Fraction(*part) for part in parts]
    observed = abs(sum(exact, Fraction()))
    signs = list(product((1, -1), repeat=len(exact)))
    extreme = sum(
        abs(sum((sign * value for sign, value in zip(row, exact, strict=True)), Fraction()))
        >= observed
        for row in signs
    )
    found = p_values(np.array([[float(value)] for value in exact]), resamples=2 ** len(exact))
    assert found[0] == extreme / len(signs)


def test_all_signs_are_taken_only_where_they_are_no_more_than_the_resamples() -> None:
    gains = np.ones((5, 1))
    assert p_values(gains, resamples=32)[0] == 2 / 32
    # One resample fewer: 31 draws, so 32 stands below, and the 1 above.
    drawn = np.random.default_rng(0).integers(2, size=(31, 5)).sum(axis=1)
    assert p_values(gains, resamples=31)[0] == (1 + np.isin(drawn, [0, 5]).sum()) / 32


def test_the_smallest_p_is_one_over_one_more_than_the_resamples() -> None:
    assert p_values(np.ones((400, 1)), resamples=500)[0] == 1 / 501


@settings(max_examples=30)
@given(st.integers(1, 30), st.integers(0, 1000), st.floats(0.01, 100))
def test_neither_side_nor_scale_matters(num_clients: int, seed: int, scale: float) -> None:
    differences = np.random.default_rng(seed).normal(size=(num_clients, 2))
    found = p_values(differences, resamples=300)
    np.testing.assert_array_equal(p_values(-scale * differences, resamples=300), found)
    assert ((found > 0) & (found <= 1)).all()


def test_no_difference_is_no_evidence() -> None:
    assert p_values(np.zeros((3, 2))).tolist() == [1.0, 1.0]
    assert p_values(np.zeros((300, 1)), resamples=99).tolist() == [1.0]
    assert p_values(np.ones((1, 1))).tolist() == [1.0]
    assert p_values(np.zeros((3, 0))).tolist() == []


def test_the_level_holds_where_the_models_are_equal() -> None:
    # A thousand tests of what is nothing: about 50 lie below .05, within 5 standard errors of 6.9.
    noise = np.random.default_rng(3).standard_t(df=3, size=(40, 1000))
    assert 15 < (p_values(noise, resamples=1000) <= 0.05).sum() < 85


@pytest.mark.parametrize(("num_clients", "resamples"), [(7, 1000), (20, 100)])
def test_the_blocks_that_bound_memory_change_nothing(
    monkeypatch: pytest.MonkeyPatch, num_clients: int, resamples: int
) -> None:
    differences = np.random.default_rng(0).normal(size=(num_clients, 4))
    whole = p_values(differences, resamples=resamples)
    monkeypatch.setattr(significance, "_BLOCK_SIGNS", num_clients * 9)
    np.testing.assert_array_equal(p_values(differences, resamples=resamples), whole)


@pytest.mark.parametrize(
    ("differences", "resamples", "message"),
    [
        (np.zeros((0, 1)), 10, r"at least one client, got \(0, 1\)"),
        (np.zeros(3), 10, r"got \(3,\)"),
        (np.array([[np.nan]]), 10, "must be finite"),
        (np.array([[np.inf]]), 10, "must be finite"),
        (np.zeros((2, 1)), 0, "resamples must be at least 1, got 0"),
    ],
)
def test_wrong_arguments_are_refused(differences: Array, resamples: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        p_values(differences, resamples=resamples)


def test_holm_of_a_case_done_by_hand() -> None:
    # Ascending .005, .01, .03, .04, .5 times 5, 4, 3, 2, 1: .025, .04, .09, .08 -> .09, .5.
    found = holm(np.array([0.04, 0.01, 0.5, 0.005, 0.03]))
    np.testing.assert_allclose(found, [0.09, 0.04, 0.5, 0.025, 0.09])
    assert holm(np.array([0.6, 0.7])).tolist() == [1.0, 1.0]
    assert holm(np.array([0.2])).tolist() == [0.2]
    assert holm(np.array([])).tolist() == []


def rejected_by_steps(p: Array, level: float) -> set[int]:
    """Holm's procedure in his words: reject the smallest, then the next, until one is too large."""
    rejected: set[int] = set()
    for step, index in enumerate(sorted(range(len(p)), key=lambda at: p[at])):
        if p[index] * (len(p) - step) > level:
            break
        rejected.add(index)
    return rejected


P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=12).map(np.array)


@given(P_VALUES, st.floats(0.001, 0.999))
def test_a_corrected_p_below_a_level_is_a_rejection_at_that_level(p: Array, level: float) -> None:
    assert set(np.flatnonzero(holm(p) <= level)) == rejected_by_steps(p, level)


@given(P_VALUES, st.randoms(use_true_random=False))
def test_holm_keeps_the_order_and_lies_between_none_and_bonferroni(
    p: Array, random: Random
) -> None:
    found = holm(p)
    assert (found >= p).all()
    assert (found <= np.minimum(1, len(p) * p)).all()
    assert (np.diff(found[np.argsort(p)]) >= 0).all()
    order = list(range(len(p)))
    random.shuffle(order)
    np.testing.assert_array_equal(holm(p[order]), found[order])


@pytest.mark.parametrize("p", [[1.5], [-0.1, 0.2], [np.nan]])
def test_what_is_no_p_value_is_refused(p: list[float]) -> None:
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        holm(np.array(p))
    with pytest.raises(ValueError, match="shape"):
        holm(np.zeros((1, 1)))
