import math

import numpy as np
import pytest
from numpy.typing import NDArray

from pkgllm.privacy.canary_scores import (
    auroc,
    clopper_pearson_epsilon,
    gaussian_fit_epsilon,
    true_positive_rate,
)
from pkgllm.privacy.gaussian import gaussian_epsilon

DELTA = 1e-5


def scores(mu: float, count: int, seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    generator = np.random.default_rng([3, seed])
    return generator.normal(mu, 1.7, count) * 2, generator.normal(0, 1.7, count) * 2


def test_areas_by_hand() -> None:
    assert auroc(np.array([3.0, 4.0]), np.array([1.0, 2.0])) == 1.0
    assert auroc(np.array([1.0, 2.0]), np.array([3.0, 4.0])) == 0.0
    assert auroc(np.array([1.0, 1.0]), np.array([1.0])) == 0.5
    # Of six pairs, (5, 1), (5, 4), (2, 1) and (3, 1) are in order.
    assert auroc(np.array([5.0, 2.0, 3.0]), np.array([1.0, 4.0])) == pytest.approx(4 / 6)


def test_rates_by_hand() -> None:
    without = np.arange(100.0)
    # One false alarm in 100 is allowed: the threshold is the second highest, 98.
    found = true_positive_rate(np.array([98.0, 98.5, 99.5, 0.0]), without, false_positive_rate=0.01)
    assert found == 0.5
    assert true_positive_rate(np.array([99.5]), without, false_positive_rate=0.0) == 1.0
    # Fewer than 100 allow none.
    assert true_positive_rate(np.array([40.5]), without[:50], false_positive_rate=0.01) == 0.0


def test_perfect_separation_by_hand() -> None:
    # Half of 20 are judged without a fault: each rate is at most 1 - 0.025^(1/10).
    most = 1 - 0.025**0.1
    found = clopper_pearson_epsilon(
        np.arange(20.0) + 100, np.arange(20.0), delta=0.0, significance=0.05
    )
    assert found == pytest.approx(math.log((1 - most) / most))


def test_chance_gives_no_bound() -> None:
    with_canary, without = scores(0.0, 500, 0)
    assert clopper_pearson_epsilon(with_canary, without, delta=DELTA, significance=0.05) == 0.0
    assert gaussian_fit_epsilon(with_canary, without, delta=DELTA, significance=0.05) < 0.5
    assert gaussian_fit_epsilon(without, with_canary + 5, delta=DELTA, significance=0.05) == 0.0


@pytest.mark.parametrize("bound", [clopper_pearson_epsilon, gaussian_fit_epsilon])
@pytest.mark.parametrize("mu", [0.5, 1.0, 2.5])
def test_bounds_hold_on_a_true_gaussian(bound, mu: float) -> None:  # type: ignore[no-untyped-def]
    truth = gaussian_epsilon(mu, DELTA)
    found = [
        bound(*scores(1.7 * mu, 150, seed), delta=DELTA, significance=0.05) for seed in range(200)
    ]
    # Binomial(200, 0.05) is above 19 once in a thousand.
    assert sum(value > truth for value in found) <= 19


@pytest.mark.parametrize("mu", [0.5, 1.0, 2.5])
def test_the_gaussian_fit_is_as_sharp_as_it_says(mu: float) -> None:
    truth = gaussian_epsilon(mu, DELTA)
    found = [
        gaussian_fit_epsilon(*scores(1.7 * mu, 500, seed), delta=DELTA, significance=0.05)
        for seed in range(200)
    ]
    # Too low as often as too high would be a coverage of 95 %: some lie above, most close below.
    assert 1 <= sum(value > truth for value in found) <= 19
    assert np.median(found) > 0.6 * truth


def test_without_noise_there_is_no_bound_to_epsilon() -> None:
    assert gaussian_fit_epsilon(np.ones(5), np.zeros(5), delta=DELTA, significance=0.05) == math.inf


def test_too_few_canaries_bound_nothing() -> None:
    assert clopper_pearson_epsilon(np.ones(1), np.zeros(9), delta=DELTA, significance=0.05) == 0.0
