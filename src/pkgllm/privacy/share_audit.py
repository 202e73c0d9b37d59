"""Audit one client's share of the noise, as a server sees it that is not trusted."""

import math
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import chi2, norm  # type: ignore[import-untyped]  # scipy ships no types

from pkgllm.privacy.audit import FALSE_ALARM, NUM_VALUES, ROUNDING, TOO_LONG, Finding
from pkgllm.privacy.audited import MakeShare, single_share
from pkgllm.privacy.canary_audit import one_release_findings, whole_run_findings
from pkgllm.privacy.clipping import GaussianSettings
from pkgllm.privacy.local_noise import LocalNoise, noise_share
from pkgllm.privacy.noise import NoiseSource, fixed

_CANARY_VALUES = 8


def share_findings(
    settings: LocalNoise, source: NoiseSource, share: MakeShare = noise_share
) -> list[Finding]:
    """Compare single shares with what they must be, and with each other.

    Args:
        settings: Of the round.
        source: Of the run's noise.
        share: In place of the real one, to see a fault being caught.
    """
    nothing = torch.zeros(NUM_VALUES)
    long = nothing.clone()
    long[0] = TOO_LONG * settings.clip_norm
    there, zeroed = (
        single_share(settings, update, fixed(0).generator("sensitivity"), share)
        for update in (long, nothing)
    )
    moved = float((there - zeroed).norm()) / settings.clip_norm
    shares = {
        place: single_share(settings, nothing, source.generator("share", *place), share)
        for place in (("anna", 1), ("ben", 1), ("anna", 2))
    }
    first, *others = shares.values()
    scale = float(first.norm()) / math.sqrt(NUM_VALUES) / settings.share_std
    low, high = chi2.ppf([FALSE_ALARM / 2, 1 - FALSE_ALARM / 2], NUM_VALUES) / NUM_VALUES
    limit = float(norm.ppf(1 - FALSE_ALARM / 2)) / math.sqrt(NUM_VALUES)
    return [
        Finding("one share", "one client moves it by, clip norms", moved, 0, 1 + ROUNDING),
        Finding(
            "one share",
            "noise, scale over what it must be",
            scale,
            math.sqrt(low),
            math.sqrt(high),
        ),
        *(
            Finding(
                "one share",
                f"correlation between {of}",
                float(torch.corrcoef(torch.stack([first, other]))[0, 1]),
                -limit,
                limit,
            )
            for of, other in zip(("clients", "rounds"), others, strict=True)
        ),
    ]


def share_canary_findings(
    settings: LocalNoise,
    included: NDArray[np.bool_],
    source: NoiseSource,
    *,
    num_releases: int,
    delta: float,
    accounted_epsilon: float,
    share: MakeShare = noise_share,
) -> list[Finding]:
    """Bound the epsilon of single shares, each of which is a canary's or noise alone.

    Args:
        settings: Of the round.
        included: Which canaries take part. Shape ``(canaries,)``.
        source: Of the run's noise.
        num_releases: Rounds that a client may be drawn for.
        delta: At which epsilon is stated.
        accounted_epsilon: What the accountant says of all of a client's shares.
        share: In place of the real one, to see a fault being caught.
    """
    scores = np.zeros((num_releases, len(included)))
    for place, takes_part in enumerate(included):
        update = torch.zeros(_CANARY_VALUES)
        update[0] = TOO_LONG * settings.clip_norm if takes_part else 0.0
        for number in range(num_releases):
            noise = source.generator("share", place, number)
            scores[number, place] = float(single_share(settings, update, noise, share)[0])
    of_one = GaussianSettings(
        settings.clip_norm, settings.noise_multiplier / math.sqrt(settings.min_shares), 1.0
    )
    findings = [
        *one_release_findings(scores[0], included, of_one, delta=delta),
        *whole_run_findings(
            scores.sum(0), included, delta=delta, accounted_epsilon=accounted_epsilon
        ),
    ]
    return [replace(finding, case=f"one share: {finding.case}") for finding in findings]
