"""Audit the mechanism of a run: the functions that training calls, with its own settings."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pkgllm.errors import ConfigError
from pkgllm.privacy.accounting import epsilon
from pkgllm.privacy.audit import (
    UNITS_PUT_IN,
    Finding,
    Sampler,
    noise_findings,
    sampling_findings,
    sensitivity_finding,
)
from pkgllm.privacy.audited import Release, client_release, example_release, local_release
from pkgllm.privacy.canary_audit import (
    canary_scores,
    dirac_canaries,
    flip_coins,
    one_release_findings,
    random_canaries,
    whole_run_findings,
)
from pkgllm.privacy.clipping import GaussianSettings
from pkgllm.privacy.local_noise import LocalNoise
from pkgllm.privacy.mechanisms import Mechanism
from pkgllm.privacy.noise import NoiseSource, poisson_sample
from pkgllm.privacy.planner import PrivacyPlan
from pkgllm.privacy.share_audit import share_canary_findings, share_findings
from pkgllm.progress import Progress

MIN_CANARIES = 100
"""With fewer no bound says anything."""

_VALUES_PER_CANARY = 10
"""Of a release with canary clients, so that their random directions hardly meet."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What a run guarantees, and the settings that it follows from.

    Raises:
        ConfigError: If there is no noise, or a value is out of range.
    """

    unit: str
    """``example`` or ``client``."""
    noise_multiplier: float
    clip_norm: float
    sampling_probability: float
    expected_units: float
    num_releases: int
    """Rounds, or local steps, that a unit may be drawn for."""
    delta: float
    epsilon: float
    """What the accountant says of all releases together."""
    min_shares: int | None = None
    """Clients' shares that make up the noise; None where one place adds it."""
    share_epsilon: float | None = None
    """What the accountant says of all of one client's shares; goes with ``min_shares``."""

    def __post_init__(self) -> None:
        if self.unit not in ("example", "client"):
            raise ConfigError(f"the privacy unit must be example or client, got {self.unit!r}")
        if not self.noise_multiplier > 0:
            raise ConfigError(
                "a mechanism without noise guarantees nothing that could be audited: the noise "
                f"multiplier must be above 0, got {self.noise_multiplier:g}"
            )
        if not 0 < self.sampling_probability <= 1:
            raise ConfigError(
                "the sampling probability must be above 0 and at most 1, got "
                f"{self.sampling_probability:g}"
            )
        if not 0 < self.delta < 1:
            raise ConfigError(f"delta must be above 0 and below 1, got {self.delta:g}")
        if self.num_releases < 1:
            raise ConfigError(f"there must be at least 1 release, got {self.num_releases}")
        try:
            _ = self.settings
        except ValueError as error:
            raise ConfigError(str(error)) from error

    @property
    def settings(self) -> GaussianSettings:
        """Those that the mechanism is called with."""
        return GaussianSettings(self.clip_norm, self.noise_multiplier, self.expected_units)

    def release(self, num_units: int) -> Release:
        """Return the mechanism itself, for at most so many units."""
        if self.min_shares is not None:
            return local_release(self.settings, max(self.min_shares, num_units))
        make = example_release if self.unit == "example" else client_release
        return make(self.settings)


def claim_of(plan: PrivacyPlan, *, accounted: float | None = None) -> Claim:
    """Return what a plan guarantees to the unit that spends most.

    Args:
        plan: Of a run.
        accounted: Epsilon to take instead of the plan's.
    """
    _, sampling_probability = plan.sampling_probability
    _, steps = plan.steps
    return Claim(
        unit=plan.unit,
        noise_multiplier=plan.noise_multiplier,
        clip_norm=plan.clip_norm,
        sampling_probability=sampling_probability,
        expected_units=plan.denominator,
        num_releases=steps,
        delta=plan.guarantee.delta,
        epsilon=accounted
        or epsilon(
            [Mechanism(plan.noise_multiplier, sampling_probability, steps)],
            delta=plan.guarantee.delta,
            accountant=plan.guarantee.accountant,
        ),
        min_shares=plan.guarantee.min_shares,
        share_epsilon=plan.guarantee.share_epsilon,
    )


def audit_mechanism(
    claim: Claim,
    source: NoiseSource,
    progress: Progress,
    *,
    num_canaries: int = 1000,
    sampler: Sampler = poisson_sample,
) -> list[Finding]:
    """Run every case against the real mechanism.

    Args:
        claim: What is audited.
        source: Of noise, sampling, coins and canaries.
        progress: Shows how many cases are done.
        num_canaries: More make the bounds sharper; at least :data:`MIN_CANARIES`.
        sampler: Draws units as the run does: the examples of a step, or the clients of a round.

    Raises:
        ConfigError: If there are too few canaries.
    """
    if num_canaries < MIN_CANARIES:
        raise ConfigError(
            f"--canaries must be at least {MIN_CANARIES}, because fewer show nothing; got "
            f"{num_canaries}"
        )
    settings = claim.settings
    # As many as the cases about noise and sensitivity put in.
    release = claim.release(max(UNITS_PUT_IN, math.ceil(2 * settings.expected_units)))
    coins = source.generator("coins", "audit")
    included = flip_coins(num_canaries, coins)
    canaries = (
        dirac_canaries(num_canaries, settings.clip_norm)
        if claim.unit == "example"
        else random_canaries(
            num_canaries,
            settings.clip_norm,
            num_values=_VALUES_PER_CANARY * num_canaries,
            generator=coins,
        )
    )
    with progress.track("auditing", 5) as advance:
        findings = [sensitivity_finding(release, settings)]
        advance()
        findings += noise_findings(release, settings, source)
        advance()
        findings += sampling_findings(claim.sampling_probability, source, sampler)
        advance()
        release = claim.release(num_canaries)
        once = canary_scores(release, canaries, included, source)
        findings += one_release_findings(once, included, settings, delta=claim.delta)
        advance()
        always = canary_scores(
            release,
            canaries,
            included,
            source,
            sampling_probability=claim.sampling_probability,
            num_releases=claim.num_releases,
            sampler=sampler,
        )
        findings += whole_run_findings(
            always, included, delta=claim.delta, accounted_epsilon=claim.epsilon
        )
        findings += _share_findings(claim, included, source)
        advance()
    return findings


def _share_findings(
    claim: Claim, included: NDArray[np.bool_], source: NoiseSource
) -> list[Finding]:
    if claim.min_shares is None or claim.share_epsilon is None:
        return []
    local = LocalNoise(claim.clip_norm, claim.noise_multiplier, claim.min_shares)
    return [
        *share_findings(local, source),
        *share_canary_findings(
            local,
            included,
            source,
            num_releases=claim.num_releases,
            delta=claim.delta,
            accounted_epsilon=claim.share_epsilon,
        ),
    ]
