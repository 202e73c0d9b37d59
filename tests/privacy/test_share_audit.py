"""The audit of single shares passes the real one and catches every planted fault."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from helpers.planted_faults import ForgetfulNoise, source
from pkgllm.lm.adapter import AdapterState
from pkgllm.privacy.audit import Finding
from pkgllm.privacy.audited import MakeShare
from pkgllm.privacy.canary_audit import flip_coins
from pkgllm.privacy.gaussian import gaussian_epsilon
from pkgllm.privacy.local_noise import LocalNoise, noise_share
from pkgllm.privacy.noise import secure
from pkgllm.privacy.share_audit import share_canary_findings, share_findings

SETTINGS = LocalNoise(clip_norm=0.5, noise_multiplier=2.0, min_shares=4)
DELTA = 1e-5


def failed(findings: list[Finding]) -> set[str]:
    return {f"{finding.case}: {finding.statistic}" for finding in findings if not finding.passed}


def canaries(share: MakeShare = noise_share, *, claimed: float = 1.0) -> list[Finding]:
    # Of each share the noise multiplier is 1, of three releases it is 1 by the root of 3.
    return share_canary_findings(
        SETTINGS,
        flip_coins(1000, np.random.default_rng(5)),
        source(),
        num_releases=3,
        delta=DELTA,
        accounted_epsilon=claimed * gaussian_epsilon(3**0.5, DELTA),
        share=share,
    )


def changed(change: Callable[[LocalNoise], LocalNoise]) -> MakeShare:
    def share(
        before: AdapterState,
        after: AdapterState,
        settings: LocalNoise,
        noise: np.random.Generator,
    ) -> AdapterState:
        return noise_share(before, after, change(settings), noise)

    return share


def forgotten(
    before: AdapterState, after: AdapterState, settings: LocalNoise, noise: np.random.Generator
) -> AdapterState:
    return after


@pytest.mark.slow
def test_real_shares_pass() -> None:
    findings = share_findings(SETTINGS, secure())
    assert len(findings) == 4
    assert failed(findings) == set()
    # What cannot fail proves nothing: one client does move its share by the whole clip norm.
    assert findings[0].value == pytest.approx(1.0, abs=1e-3)
    assert len(canaries()) == 5
    assert failed(canaries()) == set()


@pytest.mark.parametrize("factor", [0.5, 2 / 3, 3 / 2])
def test_noise_of_another_scale_is_caught_both_ways(factor: float) -> None:
    share = changed(lambda s: replace(s, noise_multiplier=factor * s.noise_multiplier))
    assert failed(share_findings(SETTINGS, source(), share)) == {
        "one share: noise, scale over what it must be"
    }


@pytest.mark.slow
def test_a_share_that_is_divided_for_too_many_is_caught() -> None:
    share = changed(lambda s: replace(s, min_shares=4 * s.min_shares))
    assert "one share: noise, scale over what it must be" in failed(
        share_findings(SETTINGS, source(), share)
    )
    assert any("Gaussian fit" in name for name in failed(canaries(share)))


def test_a_share_without_its_clip_is_caught() -> None:
    share = changed(
        lambda s: replace(s, clip_norm=1e6 * s.clip_norm, noise_multiplier=s.noise_multiplier / 1e6)
    )
    assert "one share: one client moves it by, clip norms" in failed(
        share_findings(SETTINGS, source(), share)
    )


def test_a_bare_update_is_caught() -> None:
    names = failed(share_findings(SETTINGS, source(), forgotten))
    assert "one share: noise, scale over what it must be" in names
    assert "one share: one client moves it by, clip norms" in names


@pytest.mark.parametrize(("place", "of"), [(1, "clients"), (2, "rounds")])
def test_shared_noise_is_caught(place: int, of: str) -> None:
    found = failed(share_findings(SETTINGS, ForgetfulNoise(place)))
    assert found == {f"one share: correlation between {of}"}


@pytest.mark.slow
def test_a_claim_that_is_too_low_is_caught() -> None:
    assert failed(canaries(claimed=0.01))
