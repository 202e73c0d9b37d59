"""The audit passes the real mechanisms and catches every planted fault, each by its own case."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from helpers.planted_faults import (
    SETTINGS,
    UNITS,
    ForgetfulNoise,
    Wrong,
    clip_skipped,
    each_tensor_clipped_alone,
    fixed_size_sample,
    mean_for_sum,
    noise_halved,
    release_of,
    right,
    source,
)
from helpers.tiny_objectives import at_baseline
from pkgllm.objectives.apo_zero import ApoZero
from pkgllm.objectives.kto import Kto
from pkgllm.objectives.objective import Objective
from pkgllm.objectives.scored_groups import ScoredGroups
from pkgllm.privacy.audit import (
    Finding,
    noise_findings,
    sampling_findings,
    sensitivity,
    sensitivity_finding,
)
from pkgllm.privacy.audited import Release, client_release, example_release
from pkgllm.privacy.canary_audit import (
    canary_scores,
    dirac_canaries,
    flip_coins,
    one_release_findings,
    random_canaries,
    whole_run_findings,
)
from pkgllm.privacy.clipping import GaussianSettings
from pkgllm.privacy.example_level import private_step_gradient
from pkgllm.privacy.noise import NoiseSource, fixed, secure

DELTA = 1e-5
NUM_CANARIES = 1000

REAL: dict[str, Callable[[GaussianSettings], Release]] = {
    "example": example_release,
    "client": client_release,
}


def failed(findings: Sequence[Finding]) -> set[str]:
    return {f"{finding.case}: {finding.statistic}" for finding in findings if not finding.passed}


def one_release(
    release: Release, unit: str, noise: NoiseSource, num_canaries: int
) -> list[Finding]:
    included = flip_coins(num_canaries, np.random.default_rng(5))
    canaries = (
        dirac_canaries(num_canaries, SETTINGS.clip_norm)
        if unit == "example"
        else random_canaries(
            num_canaries,
            SETTINGS.clip_norm,
            num_values=10 * num_canaries,
            generator=np.random.default_rng(6),
        )
    )
    scores = canary_scores(release, canaries, included, noise)
    return one_release_findings(scores, included, SETTINGS, delta=DELTA)


@pytest.mark.slow
@pytest.mark.parametrize("unit", UNITS)
def test_the_real_mechanism_passes(unit: str) -> None:
    release = REAL[unit](SETTINGS)
    findings = [
        sensitivity_finding(release, SETTINGS),
        *noise_findings(release, SETTINGS, secure()),
        *sampling_findings(0.2, secure()),
        *one_release(release, unit, source(), NUM_CANARIES),
    ]
    assert len(findings) == 11
    assert not failed(findings)
    # What cannot fail proves nothing: one unit does move the sum by the whole clip norm.
    assert findings[0].value == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("wrong", [clip_skipped, mean_for_sum])
def test_one_unit_that_moves_too_much_is_caught(unit: str, wrong: Wrong) -> None:
    found = sensitivity_finding(release_of(unit, wrong), SETTINGS)
    assert not found.passed
    assert sensitivity_finding(release_of(unit, right), SETTINGS).passed


def test_a_clip_of_each_tensor_by_itself_is_caught() -> None:
    found = sensitivity_finding(each_tensor_clipped_alone(SETTINGS), SETTINGS)
    assert found.value == pytest.approx(2**0.5, rel=1e-3)
    assert not found.passed


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("factor", [0.5, 2 / 3, 3 / 2])
def test_noise_of_another_scale_is_caught_both_ways(unit: str, factor: float) -> None:
    def scaled(settings: GaussianSettings, drawn: int) -> GaussianSettings:
        return replace(settings, noise_multiplier=factor * settings.noise_multiplier)

    findings = noise_findings(release_of(unit, scaled), SETTINGS, source())
    assert {f.statistic for f in findings if not f.passed} == {
        "scale over what it must be, nobody drawn",
        "scale over what it must be, twice the expected units",
    }


@pytest.mark.parametrize("unit", UNITS)
def test_a_mean_over_those_drawn_shows_in_the_noise(unit: str) -> None:
    findings = noise_findings(release_of(unit, mean_for_sum), SETTINGS, source())
    by_name = {finding.statistic: finding for finding in findings}
    assert by_name["scale over what it must be, twice the expected units"].value == pytest.approx(
        0.5, rel=0.03
    )
    assert failed(findings)


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize(("forgotten", "of"), [(1, "clients"), (2, "rounds"), (3, "steps")])
def test_shared_noise_is_caught(unit: str, forgotten: int, of: str) -> None:
    findings = noise_findings(REAL[unit](SETTINGS), SETTINGS, ForgetfulNoise(forgotten))
    assert failed(findings) == {f"noise: correlation between {of}"}


def test_a_sample_of_fixed_size_is_caught() -> None:
    findings = sampling_findings(0.2, source(), fixed_size_sample)
    assert failed(findings) == {"sampling: variance of units drawn over Poisson's"}


def test_a_wrong_sampling_probability_is_caught() -> None:
    def too_often(num_units: int, probability: float, noise: np.random.Generator) -> list[int]:
        return np.flatnonzero(noise.random(num_units) < 1.1 * probability).tolist()

    assert "sampling: units drawn over those expected" in failed(
        sampling_findings(0.2, source(), too_often)
    )


@pytest.mark.parametrize("probability", [0.001, 0.05, 0.5, 0.97, 1.0])
def test_a_poisson_sample_passes_at_every_probability(probability: float) -> None:
    assert not failed(sampling_findings(probability, secure()))


@pytest.mark.slow
@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("wrong", [noise_halved, clip_skipped])
def test_canaries_show_less_privacy_than_was_accounted_for(unit: str, wrong: Wrong) -> None:
    findings = one_release(release_of(unit, wrong), unit, source(), NUM_CANARIES)
    assert "canaries, one release: epsilon, lower bound at 95 %, Gaussian fit" in failed(findings)
    assert not failed(one_release(release_of(unit, right), unit, source(), NUM_CANARIES))


def test_halved_noise_needs_no_gaussian_fit_to_be_caught() -> None:
    # The bound that assumes least needs more canaries: with 1000 it is not sure.
    release = release_of("example", noise_halved)
    found = failed(one_release(release, "example", source(), 4000))
    assert "canaries, one release: epsilon, lower bound at 95 %, one run, f-DP" in found


@pytest.mark.slow
def test_a_whole_run_with_sampling_stays_below_the_accountant() -> None:
    from opacus.accountants import PRVAccountant

    accountant = PRVAccountant()
    accountant.history = [(SETTINGS.noise_multiplier, 0.3, 10)]
    accounted = float(accountant.get_epsilon(delta=DELTA))
    included = flip_coins(400, np.random.default_rng(5))
    canaries = dirac_canaries(400, SETTINGS.clip_norm)

    def findings(noise_multiplier: float) -> list[Finding]:
        settings = replace(SETTINGS, noise_multiplier=noise_multiplier)
        scores = canary_scores(
            example_release(settings),
            canaries,
            included,
            source(),
            sampling_probability=0.3,
            num_releases=10,
        )
        return whole_run_findings(scores, included, delta=DELTA, accounted_epsilon=accounted)

    right_ones = findings(SETTINGS.noise_multiplier)
    assert not failed(right_ones)
    assert all(finding.value > 0 for finding in right_ones)
    assert not failed(findings(SETTINGS.noise_multiplier / 2)), "it is too weak for that"
    nothing = findings(1e-3)
    assert all(
        after.value > 2 * before.value for before, after in zip(right_ones, nothing, strict=True)
    )


@pytest.mark.slow
@pytest.mark.parametrize("unit", UNITS)
def test_the_audit_of_the_real_mechanism_holds_in_two_hundred_repeats(unit: str) -> None:
    release = REAL[unit](SETTINGS)
    above = sum(bool(failed(one_release(release, unit, fixed(seed), 150))) for seed in range(200))
    assert above <= 10


def batch_gradients(objective: Objective, examples: Sequence[int]) -> Tensor:
    """Per-example gradients of a batch whose log-ratios are linear in the parameters.

    Each example has a copy of the parameters, as a lane has. Example 0 is the canary: alone among
    them it has a mismatched log-ratio, which enters no loss of its own but the batch's baseline.
    """
    num_values, count = 16, len(examples)
    features = torch.zeros(64, num_values)
    features[:, 0] = 1.0
    features[0] = 0.0
    features[0, 1] = 1.0
    mismatched = torch.zeros(64)
    mismatched[0] = 400.0
    chosen = torch.tensor(list(examples), dtype=torch.long)
    copies = torch.zeros(count, num_values, requires_grad=True)
    ratios = (features[chosen] * copies).sum(1)
    loss = objective.loss(
        ScoredGroups(
            policy=ratios,
            reference=torch.zeros(count),
            desirable=torch.ones(count, dtype=torch.bool),
            num_tokens=torch.ones(count, dtype=torch.int64),
            group_index=torch.arange(count),
            num_groups=count,
            mismatched_log_ratio=mismatched[chosen],
        )
    )
    (found,) = torch.autograd.grad(loss * count, copies)
    return found


WEIGHTS: dict[str, Any] = {
    "beta": 0.1,
    "desirable_weight": 1.0,
    "undesirable_weight": 1.0,
    "nll_weight": 0.0,
}


@pytest.mark.parametrize(
    ("objective", "length"),
    [
        (ApoZero(**WEIGHTS), 1.0),
        (at_baseline(Kto(kl_baseline="public", **WEIGHTS), 20.0), 0.42),
        (Kto(**WEIGHTS), None),
    ],
    ids=["apo_zero", "public kto", "kto"],
)
def test_the_baseline_of_kto_couples_a_batch_and_is_caught(
    objective: Objective, length: float | None
) -> None:
    # beta s'(0) = 0.025 is the length of each gradient at baseline 0: not saturated, as C is that.
    # At 20 it is s'(2) / s'(0) = 0.42 of it, and that of the one example is all that moves.
    settings = GaussianSettings(clip_norm=0.025, noise_multiplier=1.0, expected_units=16.0)

    def release(members: Sequence[int]) -> Tensor:
        return private_step_gradient(
            [batch_gradients(objective, members)],
            settings,
            fixed(0).generator(),
            num_values=16,
        )

    found = sensitivity(release, range(16), settings)
    if length is None:
        assert found > 3.0
    else:
        assert found == pytest.approx(length, abs=1e-3)
