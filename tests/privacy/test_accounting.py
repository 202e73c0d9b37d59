"""Numbers by closed forms and properties; agreement with another accountant is beside."""

import math
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq  # type: ignore[import-untyped]
from scipy.stats import norm  # type: ignore[import-untyped]

from pkgllm.errors import PrivacyError
from pkgllm.privacy.accounting import (
    MAX_NOISE_MULTIPLIER,
    NOISE_TOLERANCE,
    calibrate_noise,
    epsilon,
    fact_epsilon,
    largest_epsilon,
)
from pkgllm.privacy.mechanisms import Accountant, Mechanism, SamplingSchedule, fact_mechanism

DELTA = 1e-4
NOISE = st.floats(0.5, 20)
PROBABILITY = st.floats(0.01, 1)
STEPS = st.integers(1, 50)


def gaussian_epsilon(noise_multiplier: float, steps: int, delta: float) -> float:
    """Balle & Wang 2018, theorem 8, exactly; steps without sampling are one with less noise."""
    mu = math.sqrt(steps) / noise_multiplier

    def excess(eps: float) -> float:
        lower = norm.cdf(mu / 2 - eps / mu) - math.exp(eps) * norm.cdf(-mu / 2 - eps / mu)
        return float(lower) - delta

    return float(brentq(excess, 0, 200))


@pytest.mark.parametrize(("noise", "steps"), [(5.0, 1), (2.0, 4), (4.0, 50), (10.0, 3)])
def test_without_sampling_it_is_the_gaussian_mechanism(noise: float, steps: int) -> None:
    exact = gaussian_epsilon(noise, steps, DELTA)
    found = epsilon([Mechanism(noise, 1.0, steps)], delta=DELTA)
    assert exact <= found <= exact + 0.02
    assert epsilon([Mechanism(noise, 1.0, steps)], delta=DELTA, accountant="rdp") >= exact


@pytest.mark.parametrize("accountant", ["prv", "rdp"])
def test_nothing_costs_nothing_and_no_noise_costs_everything(accountant: Accountant) -> None:
    assert epsilon([], delta=DELTA, accountant=accountant) == 0
    assert epsilon([Mechanism(1.0, 0.0, 9)], delta=DELTA, accountant=accountant) == 0
    assert epsilon([Mechanism(0.0, 0.1, 0)], delta=DELTA, accountant=accountant) == 0
    spoilt = [Mechanism(9.0, 0.1, 9), Mechanism(0.0, 1e-9)]
    assert epsilon(spoilt, delta=DELTA, accountant=accountant) == math.inf


@pytest.mark.parametrize("noise", [1e-9, 1e-4, 1e-3, 0.01, 0.03, 0.1, 0.2])
@pytest.mark.parametrize("probability", [0.01, 0.3, 1.0])
def test_next_to_no_noise_still_gives_a_number(noise: float, probability: float) -> None:
    # One step of the unsampled mechanism is the most that can be lost.
    found = epsilon([Mechanism(noise, probability)], delta=DELTA)
    assert found > 5
    assert not math.isnan(found)


@pytest.mark.parametrize("delta", [0.0, 1.0, -0.1, float("nan")])
def test_delta_is_a_probability(delta: float) -> None:
    with pytest.raises(ValueError, match="delta must be above 0 and below 1"):
        epsilon([], delta=delta)


@pytest.mark.slow
@given(NOISE, PROBABILITY, STEPS, st.floats(1, 3), st.floats(0.1, 1), st.integers(0, 20))
@settings(max_examples=50, deadline=None)
def test_less_noise_more_sampling_and_more_steps_cost_more(
    noise: float, probability: float, steps: int, louder: float, rarer: float, more: int
) -> None:
    worse = Mechanism(noise, probability, steps + more)
    better = Mechanism(noise * louder, probability * rarer, steps)
    assert worse.dominates(better)
    low, high = (epsilon([m], delta=DELTA, accountant="rdp") for m in (better, worse))
    assert low <= high + 1e-9


@pytest.mark.slow
@pytest.mark.parametrize(
    "better", [Mechanism(1.2, 0.2, 10), Mechanism(1.0, 0.1, 10), Mechanism(1.0, 0.2, 5)]
)
def test_the_numerical_accountant_tells_the_better_one_too(better: Mechanism) -> None:
    assert epsilon([better], delta=DELTA) < epsilon([Mechanism(1.0, 0.2, 10)], delta=DELTA)


@pytest.mark.slow
@given(st.lists(st.builds(Mechanism, NOISE, PROBABILITY, STEPS), min_size=1, max_size=6))
@settings(max_examples=30, deadline=None)
def test_the_largest_is_that_of_all_priced_one_by_one(mechanisms: list[Mechanism]) -> None:
    histories = [[m] for m in mechanisms]
    singly = max(epsilon(h, delta=DELTA, accountant="rdp") for h in histories)
    assert largest_epsilon(histories, delta=DELTA, accountant="rdp") == pytest.approx(singly)


def test_the_largest_of_nobody_is_nothing() -> None:
    assert largest_epsilon([], delta=DELTA) == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "planned", "accountant"),
    [
        (1.0, [SamplingSchedule(0.2, 10)], "prv"),
        (8.0, [SamplingSchedule(1.0, 4)], "prv"),
        (60.0, [SamplingSchedule(1.0, 4)], "prv"),
        (1e5, [SamplingSchedule(1.0, 4)], "prv"),
        (
            3.0,
            [SamplingSchedule(0.1, 300), SamplingSchedule(0.9, 5), SamplingSchedule(0.05, 5)],
            "rdp",
        ),
        (0.2, [SamplingSchedule(0.01, 3)], "rdp"),
    ],
)
def test_calibrated_noise_holds_and_is_the_smallest(
    target: float, planned: list[SamplingSchedule], accountant: Accountant
) -> None:
    def cost(noise: float) -> float:
        histories = [[schedule.mechanism(noise)] for schedule in planned]
        return largest_epsilon(histories, delta=DELTA, accountant=accountant)

    noise = calibrate_noise(target, delta=DELTA, schedules=planned, accountant=accountant)
    assert cost(noise) <= target
    assert cost(noise / (1 + 1.01 * NOISE_TOLERANCE)) > target


def test_what_no_noise_reaches_is_refused_with_what_can_be() -> None:
    with pytest.raises(PrivacyError, match=r"target_epsilon 0\.001 cannot be reached") as refused:
        calibrate_noise(1e-3, delta=1e-6, schedules=[SamplingSchedule(1.0, 50)])
    assert f"even noise_multiplier {MAX_NOISE_MULTIPLIER:g} gives epsilon 0.0" in str(refused.value)


def test_calibration_needs_somebody_and_a_target() -> None:
    for target, planned in ((1.0, []), (0.0, [SamplingSchedule(0.1, 1)])):
        with pytest.raises(ValueError, match="needs a schedule and a target_epsilon above 0"):
            calibrate_noise(target, delta=DELTA, schedules=planned)


@pytest.mark.parametrize("max_groups", [2, 3, 5])
def test_group_privacy_by_hand(max_groups: int) -> None:
    # One fact costs its groups one by one, at the delta that is left to each of them.
    one = Mechanism(4.0, 0.02, 100)
    found = fact_epsilon([one], max_groups=max_groups, delta=DELTA, accountant="rdp")
    each = found / max_groups
    left = DELTA / sum(math.exp(place * each) for place in range(max_groups))
    moved = epsilon([fact_mechanism(one, max_groups)], delta=DELTA, accountant="rdp")
    assert found < moved
    assert epsilon([one], delta=left, accountant="rdp") <= each * (1 + 1e-9)


def test_a_fact_in_one_group_is_an_example() -> None:
    one = Mechanism(2.0, 0.1, 20)
    assert fact_epsilon([one], max_groups=1, delta=DELTA) == epsilon([one], delta=DELTA)


@pytest.mark.slow
def test_opacus_does_not_configure_the_log_of_others() -> None:
    code = (
        "import logging\n"
        "from pkgllm.privacy.accounting import epsilon\n"
        "from pkgllm.privacy.mechanisms import Mechanism\n"
        "assert epsilon([Mechanism(1.0, 0.5)], delta=1e-3) > 0\n"
        "assert logging.getLogger().handlers == []\n"
        "assert logging.getLogger().level == logging.WARNING\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
