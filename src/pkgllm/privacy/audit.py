"""Audit a mechanism by what it releases: does it protect as much as was accounted for?

The cases drive the functions that a run calls, on contributions made for the purpose, so they take
seconds and no model. Each looks at something that a fault would change: how far one unit moves the
release, the noise's scale, what two releases share, and how units are drawn. What canaries let an
auditor guess stands in :mod:`pkgllm.privacy.canary_audit`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import chi2, norm  # type: ignore[import-untyped]  # scipy ships no types
from torch import Tensor

from pkgllm.privacy.audited import Release
from pkgllm.privacy.clipping import GaussianSettings
from pkgllm.privacy.noise import NoiseSource, fixed, poisson_sample

FALSE_ALARM = 1e-4
"""Of each two-sided check."""

ROUNDING = 1e-3
"""Relative; releases are float32."""

TOO_LONG = 3.0
"""Length of what is put in, in clip norms: a clip that is skipped must show."""

NUM_VALUES = 20_000
"""Values of a release whose noise is looked at."""

UNITS_PUT_IN = 9
"""By the case that leaves one of them out."""

Sampler = Callable[[int, float, np.random.Generator], Sequence[int]]


@dataclass(frozen=True, slots=True)
class Finding:
    """One statistic, and the range in which it lies if the mechanism is right."""

    case: str
    statistic: str
    value: float
    low: float
    high: float

    @property
    def passed(self) -> bool:
        """Whether the value is in its range; NaN never is."""
        return self.low <= self.value <= self.high


def sensitivity(
    release: Callable[[Sequence[int]], Tensor], members: Sequence[int], settings: GaussianSettings
) -> float:
    """Return how far leaving out one member moves the sum, in clip norms; it must be at most 1.

    Args:
        release: Of some members, always with the same noise, which then falls out.
        members: At least one.
        settings: Of the mechanism.
    """
    everyone = release(members).double()
    moved = [
        float((everyone - release([m for m in members if m != left_out]).double()).norm())
        for left_out in members
    ]
    # max() would pass over NaN.
    largest = max(moved) if all(map(math.isfinite, moved)) else math.nan
    return largest * settings.expected_units / settings.clip_norm


def sensitivity_finding(release: Release, settings: GaussianSettings) -> Finding:
    """Put in and leave out long, opposite, orthogonal, empty and broken contributions."""
    num_values = 64
    rows = torch.zeros(UNITS_PUT_IN, num_values)
    rows[:4, 0] = TOO_LONG
    rows[4, 0] = -TOO_LONG
    rows[5, 1] = 1e6
    rows[6] = torch.linspace(-1, 1, num_values)
    rows[7, 2] = math.inf
    rows *= settings.clip_norm

    def of(members: Sequence[int]) -> Tensor:
        return release(rows[list(members)], fixed(0).generator("sensitivity"))

    lengths = [sensitivity(of, members, settings) for members in ([0], [5], range(len(rows)))]
    value = max(lengths) if all(map(math.isfinite, lengths)) else math.nan
    return Finding("sensitivity", "one unit moves the sum by, clip norms", value, 0, 1 + ROUNDING)


def noise_findings(
    release: Release, settings: GaussianSettings, source: NoiseSource
) -> list[Finding]:
    """Compare the noise of releases with what they must be, and with each other.

    Args:
        release: The mechanism.
        settings: Of the mechanism.
        source: Of the run's noise.
    """
    bounds = chi2.ppf([FALSE_ALARM / 2, 1 - FALSE_ALARM / 2], NUM_VALUES - 1) / (NUM_VALUES - 1)
    low, high = (math.sqrt(bound) for bound in bounds)
    many = math.ceil(2 * settings.expected_units)
    findings, kept = [], {}
    for units, name in ((0, "nobody drawn"), (many, "twice the expected units")):
        noise = source.generator("noise", f"audit {units}", 1, 0)
        released = _noise_of(release, settings, units, noise)
        ratio = float(released.norm()) / math.sqrt(len(released)) / settings.released_std
        findings.append(Finding("noise", f"scale over what it must be, {name}", ratio, low, high))
    for place in (("anna", 1, 0), ("ben", 1, 0), ("anna", 2, 0), ("anna", 1, 1)):
        kept[place] = _noise_of(release, settings, 0, source.generator("noise", *place))
    first, *others = kept
    limit = float(norm.ppf(1 - FALSE_ALARM / 2)) / math.sqrt(NUM_VALUES - 1)
    for place, of in zip(others, ("clients", "rounds", "steps"), strict=True):
        value = float(torch.corrcoef(torch.stack([kept[first], kept[place]]))[0, 1])
        findings.append(Finding("noise", f"correlation between {of}", value, -limit, limit))
    return findings


def _noise_of(
    release: Release, settings: GaussianSettings, num_units: int, noise: np.random.Generator
) -> Tensor:
    """Return what a release holds where nobody contributed."""
    rows = torch.zeros(num_units, NUM_VALUES)
    rows[:, 0] = TOO_LONG * settings.clip_norm
    return release(rows, noise)[1:].double()


def sampling_findings(
    sampling_probability: float, source: NoiseSource, sampler: Sampler = poisson_sample
) -> list[Finding]:
    """Compare how many units are drawn with a Poisson sample, in mean and in spread.

    A sample of fixed size has no spread, and is not what amplification is accounted for.

    Args:
        sampling_probability: Of each unit; at 1 there is nothing to check.
        source: Of the run's sampling.
        sampler: In place of the real one, to see a fault being caught.
    """
    if sampling_probability == 1:
        return []
    num_draws = 500
    # Enough that the count is nearly Gaussian.
    num_units = math.ceil(40 / min(sampling_probability, 1 - sampling_probability))
    drawn = np.array(
        [
            len(sampler(num_units, sampling_probability, source.generator("sample", "audit", i)))
            for i in range(num_draws)
        ]
    )
    expected = num_units * sampling_probability
    variance = expected * (1 - sampling_probability)
    mean_limit = float(norm.ppf(1 - FALSE_ALARM / 2)) * math.sqrt(variance / num_draws) / expected
    low, high = chi2.ppf([FALSE_ALARM / 2, 1 - FALSE_ALARM / 2], num_draws) / num_draws
    spread = float(((drawn - expected) ** 2).mean() / variance)
    return [
        Finding(
            "sampling",
            "units drawn over those expected",
            float(drawn.mean() / expected),
            1 - mean_limit,
            1 + mean_limit,
        ),
        # A count is no Gaussian: its fourth moment widens the range where few are drawn.
        Finding(
            "sampling",
            "variance of units drawn over Poisson's",
            spread,
            1 - (1 - low) * math.sqrt(1 + 1 / (2 * variance)),
            1 + (high - 1) * math.sqrt(1 + 1 / (2 * variance)),
        ),
    ]
