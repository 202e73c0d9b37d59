"""Mechanisms and sources that are wrong in one way each, as an audit must notice."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from pkgllm.lm.adapter import AdapterState
from pkgllm.privacy.audited import Release, client_release, example_release
from pkgllm.privacy.client_level import NoisyMean, privatise_updates
from pkgllm.privacy.clipping import GaussianSettings
from pkgllm.privacy.example_level import private_step_gradient
from pkgllm.privacy.noise import NoiseSource, fixed

Wrong = Callable[[GaussianSettings, int], GaussianSettings]
"""From the settings and how many units were drawn to those that the fault amounts to."""

SETTINGS = GaussianSettings(clip_norm=0.5, noise_multiplier=1.0, expected_units=10.0)
UNITS = ("example", "client")


def right(settings: GaussianSettings, drawn: int) -> GaussianSettings:
    return settings


def noise_halved(settings: GaussianSettings, drawn: int) -> GaussianSettings:
    return replace(settings, noise_multiplier=settings.noise_multiplier / 2)


def clip_skipped(settings: GaussianSettings, drawn: int) -> GaussianSettings:
    return replace(
        settings,
        clip_norm=settings.clip_norm * 1e9,
        noise_multiplier=settings.noise_multiplier / 1e9,
    )


def mean_for_sum(settings: GaussianSettings, drawn: int) -> GaussianSettings:
    return replace(settings, expected_units=max(drawn, 1))


def release_of(unit: str, wrong: Wrong = right, settings: GaussianSettings = SETTINGS) -> Release:
    """The real mechanism, with settings that do what the fault would."""

    def step(
        parts: Iterable[Tensor],
        given: GaussianSettings,
        noise: np.random.Generator,
        *,
        num_values: int,
    ) -> Tensor:
        rows = list(parts)
        found = wrong(given, sum(map(len, rows)))
        return private_step_gradient(rows, found, noise, num_values=num_values)

    def privatise(
        before: AdapterState,
        updates: Iterable[Mapping[str, Tensor]],
        given: GaussianSettings,
        noise: np.random.Generator,
    ) -> NoisyMean:
        rows = list(updates)
        return privatise_updates(before, rows, wrong(given, len(rows)), noise)

    if unit == "example":
        return example_release(settings, step)
    return client_release(settings, privatise)


def each_tensor_clipped_alone(settings: GaussianSettings) -> Release:
    def privatise(
        before: AdapterState,
        updates: Iterable[Mapping[str, Tensor]],
        given: GaussianSettings,
        noise: np.random.Generator,
    ) -> NoisyMean:
        rows = list(updates)
        means = [
            privatise_updates(before, rows, given, noise, trained=[key]).adapter[key]
            for key in sorted(before)
        ]
        return NoisyMean(dict(zip(sorted(before), means, strict=True)), 0, 0)

    return client_release(settings, privatise)


@dataclass(frozen=True)
class ForgetfulNoise:
    """Forgets one of the names that a stream is asked for by, so that those share noise."""

    forgotten: int
    reproducible: bool = True

    def generator(self, *names: str | int) -> np.random.Generator:
        kept = [name for place, name in enumerate(names) if place != self.forgotten]
        return fixed(0).generator(*kept)


def fixed_size_sample(
    num_units: int, sampling_probability: float, noise: np.random.Generator
) -> Sequence[int]:
    size = round(sampling_probability * num_units)
    drawn: list[int] = noise.choice(num_units, size, replace=False).tolist()
    return drawn


def source() -> NoiseSource:
    return fixed(20)
