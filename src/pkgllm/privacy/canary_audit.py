"""Canaries through the real mechanism: what an auditor can guess from what is released.

Canaries take part by coin flips; how well their scores tell who did bounds epsilon from below.
"""

from collections.abc import Mapping
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pkgllm.privacy.audit import TOO_LONG, Finding, Sampler
from pkgllm.privacy.audited import Release
from pkgllm.privacy.canary_scores import gaussian_fit_epsilon
from pkgllm.privacy.clipping import GaussianSettings
from pkgllm.privacy.gaussian import gaussian_epsilon
from pkgllm.privacy.noise import NoiseSource, poisson_sample
from pkgllm.privacy.one_run import (
    Bound,
    best_bound,
    f_dp_epsilon,
    f_dp_gaussian_epsilon,
    one_run_epsilon,
)

SIGNIFICANCE = 0.05
"""Of the lower bounds on epsilon, together in each case."""


def dirac_canaries(num_canaries: int, clip_norm: float) -> Tensor:
    """Return orthogonal canaries, each longer than the clip norm."""
    return torch.eye(num_canaries) * (TOO_LONG * clip_norm)


def random_canaries(
    num_canaries: int, clip_norm: float, *, num_values: int, generator: np.random.Generator
) -> Tensor:
    """Return canaries of random direction, each longer than the clip norm.

    Source: Andrew et al. 2023, arXiv:2302.03098. They are only nearly orthogonal, so each is part
    of the noise of the others: the bounds get lower and stay valid.
    """
    rows = torch.from_numpy(generator.standard_normal((num_canaries, num_values), np.float32))
    return torch.nn.functional.normalize(rows) * (TOO_LONG * clip_norm)


def flip_coins(num_canaries: int, generator: np.random.Generator) -> NDArray[np.bool_]:
    """Return which canaries take part, each by a fair coin."""
    return generator.random(num_canaries) < 0.5


def canary_scores(
    release: Release,
    canaries: Tensor,
    included: NDArray[np.bool_],
    source: NoiseSource,
    *,
    sampling_probability: float = 1.0,
    num_releases: int = 1,
    sampler: Sampler = poisson_sample,
) -> NDArray[np.float64]:
    """Return how much of each canary is in what was released.

    Args:
        release: The mechanism.
        canaries: Shape ``(canaries, values)``.
        included: Which take part. Shape ``(canaries,)``.
        source: Of noise and sampling.
        sampling_probability: With which those who take part are drawn for a release.
        num_releases: The canaries take part in all of them or in none.
        sampler: How they are drawn.
    """
    scores = torch.zeros(len(canaries), dtype=torch.float64)
    directions = torch.nn.functional.normalize(canaries).double()
    taking_part = np.flatnonzero(included)
    for number in range(num_releases):
        drawn = sampler(
            len(taking_part),
            sampling_probability,
            source.generator("sample", "audit", number),
        )
        rows = canaries[torch.from_numpy(taking_part[list(drawn)])]
        released = release(rows, source.generator("noise", "audit", 1, number))
        scores += directions @ released.double()
    return scores.numpy()


def one_release_findings(
    scores: NDArray[np.float64],
    included: NDArray[np.bool_],
    settings: GaussianSettings,
    *,
    delta: float,
    significance: float = SIGNIFICANCE,
) -> list[Finding]:
    """Bound the epsilon of one release in which nobody is left out by sampling.

    Args:
        scores: As :func:`canary_scores` gives them for one release.
        included: Which canaries took part.
        settings: Of the mechanism.
        delta: At which epsilon is stated.
        significance: Of all bounds together.
    """
    accounted = gaussian_epsilon(1 / settings.noise_multiplier, delta)
    each = significance / 3
    fit = gaussian_fit_epsilon(scores[included], scores[~included], delta=delta, significance=each)
    bound = partial(best_bound, scores=scores, included=included, delta=delta, significance=each)
    values = {
        "one run": bound(one_run_epsilon),
        "one run, f-DP": bound(f_dp_gaussian_epsilon),
        "Gaussian fit": fit,
    }
    return [
        _bound("canaries, one release", name, value, accounted) for name, value in values.items()
    ]


def whole_run_findings(
    scores: NDArray[np.float64],
    included: NDArray[np.bool_],
    *,
    delta: float,
    accounted_epsilon: float,
    significance: float = SIGNIFICANCE,
) -> list[Finding]:
    """Bound the epsilon of all releases together, sampling included.

    Args:
        scores: As :func:`canary_scores` gives them for all releases.
        included: Which canaries took part.
        delta: At which epsilon is stated.
        accounted_epsilon: What the accountant says of all releases.
        significance: Of all bounds together.
    """
    bounds: Mapping[str, Bound] = {"one run": one_run_epsilon, "one run, f-DP": f_dp_epsilon}
    return [
        _bound(
            "canaries, all releases",
            name,
            best_bound(bound, scores, included, delta=delta, significance=significance / 2),
            accounted_epsilon,
        )
        for name, bound in bounds.items()
    ]


def _bound(case: str, name: str, value: float, accounted: float) -> Finding:
    return Finding(case, f"epsilon, lower bound at 95 %, {name}", value, 0.0, accounted)
