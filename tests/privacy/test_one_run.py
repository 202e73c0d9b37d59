"""Bounds from one run: by hand, against the theorem written out, and on true Gaussian releases."""

import math
from fractions import Fraction
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import norm  # type: ignore[import-untyped]  # scipy ships no types

from pkgllm.privacy.gaussian import gaussian_delta, gaussian_epsilon
from pkgllm.privacy.one_run import (
    Guesses,
    approximate_reduction,
    best_bound,
    f_dp_epsilon,
    f_dp_gaussian_epsilon,
    f_dp_rules_out,
    gaussian_reduction,
    guess,
    one_run_epsilon,
    one_run_p_value,
)

DELTA = 1e-5


@st.composite
def some_guesses(draw: st.DrawFn) -> Guesses:
    num_canaries = draw(st.integers(1, 30))
    num_guesses = draw(st.integers(1, num_canaries))
    return Guesses(num_canaries, num_guesses, draw(st.integers(0, num_guesses)))


def p_value_written_out(guesses: Guesses, accuracy: Fraction, delta: Fraction) -> Fraction:
    """Theorem 5.2 in exact arithmetic."""
    r, v = guesses.num_guesses, guesses.num_correct

    def f(x: int) -> Fraction:
        return sum(
            (comb(r, k) * accuracy**k * (1 - accuracy) ** (r - k) for k in range(max(x, 0), r + 1)),
            Fraction(0),
        )

    alpha = max((f(v - i) - f(v)) / i for i in range(1, guesses.num_canaries + 1))
    return min(f(v) + 2 * guesses.num_canaries * delta * alpha, Fraction(1))


@pytest.mark.slow
@given(some_guesses(), st.integers(1, 99), st.sampled_from([0, 1, 10, 1000]))
def test_the_p_value_is_that_of_the_theorem(guesses: Guesses, odds: int, delta: int) -> None:
    accuracy, of = Fraction(odds, odds + 1), Fraction(delta, 100_000)
    found = one_run_p_value(guesses, epsilon=math.log(odds), delta=float(of))
    assert found == pytest.approx(float(p_value_written_out(guesses, accuracy, of)), abs=1e-9)


def test_a_p_value_by_hand() -> None:
    # Of 2 fair coins both are right in 1/4; of the rest 1/2 misses by one and 1/4 by two, so alpha
    # is max(1/2, 3/4 / 2) and 2 m delta alpha is 2 * 2 * 0.01 / 2.
    found = one_run_p_value(Guesses(2, 2, 2), epsilon=0.0, delta=0.01)
    assert found == pytest.approx(0.25 + 0.02)


def test_ten_right_guesses_by_hand() -> None:
    # p^10 = 0.05 at p = 0.7411, and epsilon is the logarithm of its odds.
    accuracy = 0.05**0.1
    found = one_run_epsilon(Guesses(10, 10, 10), delta=0.0, significance=0.05)
    assert found == pytest.approx(math.log(accuracy / (1 - accuracy)))


def test_one_canary_is_guessed_as_well_as_the_gaussian_allows() -> None:
    # With one canary the best guess is right with probability Phi(mu / 2): the bound is exact.
    guesses, mu = Guesses(1, 1, 1), 0.8
    success = float(norm.cdf(mu / 2))
    assert not f_dp_rules_out(guesses, gaussian_reduction(mu), success - 1e-6)
    assert f_dp_rules_out(guesses, gaussian_reduction(mu), success + 1e-6)


def test_one_canary_under_pure_privacy_by_hand() -> None:
    # Randomised response is right with probability e / (1 + e).
    guesses, success = Guesses(1, 1, 1), 1 / (1 + math.exp(-1.5))
    assert not f_dp_rules_out(guesses, approximate_reduction(1.5, 0.0), success - 1e-6)
    assert f_dp_rules_out(guesses, approximate_reduction(1.5, 0.0), success + 1e-6)


@pytest.mark.parametrize("bound", [one_run_epsilon, f_dp_epsilon, f_dp_gaussian_epsilon])
def test_chance_rules_nothing_out_and_more_right_guesses_rule_out_more(bound) -> None:  # type: ignore[no-untyped-def]
    found = [
        bound(Guesses(500, 100, right), delta=DELTA, significance=0.05)
        for right in (50, 70, 80, 95)
    ]
    assert found[0] == 0.0
    assert 0 < found[1] < found[2] < found[3]


def test_the_f_dp_bound_is_the_sharper_one() -> None:
    guesses = Guesses(1000, 100, 97)
    plain = one_run_epsilon(guesses, delta=DELTA, significance=0.05)
    assert f_dp_epsilon(guesses, delta=DELTA, significance=0.05) >= plain - 0.02
    assert f_dp_gaussian_epsilon(guesses, delta=DELTA, significance=0.05) > 1.2 * plain


def test_guesses_by_hand() -> None:
    scores = np.array([0.1, 5.0, -3.0, 0.2, 4.0])
    included = np.array([True, True, False, False, False])
    assert guess(scores, included, 4) == Guesses(5, 4, 2)
    assert guess(scores, included, 1) == Guesses(5, 1, 1)
    assert guess(scores, included, 5) == Guesses(5, 5, 2)


def test_impossible_counts_and_scores_are_refused() -> None:
    with pytest.raises(ValueError, match="rising order"):
        Guesses(10, 5, 6)
    with pytest.raises(ValueError, match="finite"):
        guess(np.array([0.0, math.nan]), np.array([True, False]), 1)


def a_release(
    mu: float, num_canaries: int, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    generator = np.random.default_rng([17, seed])
    included = generator.random(num_canaries) < 0.5
    return generator.standard_normal(num_canaries) + mu * included, included


@pytest.mark.slow
@pytest.mark.parametrize("mu", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("bound", [one_run_epsilon, f_dp_epsilon, f_dp_gaussian_epsilon])
def test_no_bound_lies_above_the_epsilon_of_a_true_gaussian(bound, mu: float) -> None:  # type: ignore[no-untyped-def]
    truth = gaussian_epsilon(mu, DELTA)
    above = 0
    for seed in range(200):
        scores, included = a_release(mu, 200, seed)
        above += best_bound(bound, scores, included, delta=DELTA, significance=0.05) > truth
    assert above <= 10


def test_a_bound_finds_part_of_the_epsilon_of_a_true_gaussian() -> None:
    scores, included = a_release(2.0, 1000, 0)
    truth = gaussian_epsilon(2.0, DELTA)
    for bound, least in ((one_run_epsilon, 0.25), (f_dp_gaussian_epsilon, 0.4)):
        found = best_bound(bound, scores, included, delta=DELTA, significance=0.05)
        assert least * truth < found <= truth


@given(st.floats(0.05, 20), st.floats(1e-9, 0.1))
def test_epsilon_of_a_gaussian_gives_its_delta_back(mu: float, delta: float) -> None:
    epsilon = gaussian_epsilon(mu, delta)
    if epsilon > 0:
        assert gaussian_delta(mu, epsilon) == pytest.approx(delta, rel=1e-4)
    else:
        assert gaussian_delta(mu, 0.0) <= delta


@pytest.mark.parametrize(("mu", "delta"), [(1.0, 0.0), (1.0, 1.0), (-1.0, 0.1), (math.inf, 0.1)])
def test_a_mu_or_delta_that_is_none_is_refused(mu: float, delta: float) -> None:
    with pytest.raises(ValueError, match="must be"):
        gaussian_epsilon(mu, delta)
