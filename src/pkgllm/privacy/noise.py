"""Where noise and private sampling come from: the operating system, never the run's seed.

Whoever knows the seed of a run can repeat its draws and take the noise off again, and clients that
derive their noise from one seed share it, so that a difference of two releases cancels it. Both is
ruled out here: every stream is keyed with 128 fresh bits of the operating system.

What stays: a Gaussian in floating point is not the Gaussian of the theorem. Its values lie on a
grid that depends on them, which can tell neighbouring inputs apart in principle (Mironov 2012,
"On significance of the least significant bits for differential privacy"). Noise is therefore drawn
and added in float64 and only the finished release is rounded to float32, which hides the low bits
from an observer of releases; it is no proof, as a discrete Gaussian would be. The generator is
Philox, counter-based with a 128-bit key; it is not a certified cipher. A ``torch.Generator`` is
not used because on a CPU ``manual_seed`` keeps only 32 bits of its seed.
"""

import secrets
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from pkgllm.randomness import stream

_BLOCK = 1 << 20
"""Values drawn at once."""


class NoiseSource(Protocol):
    """Hands out one independent stream for each purpose."""

    @property
    def reproducible(self) -> bool:
        """Whether somebody else can draw the same noise again; a run must say so."""
        ...

    def generator(self, *names: str | int) -> np.random.Generator:
        """Return the stream of a purpose, for example ``("noise", client, round_num, step)``."""
        ...


class SecureNoise:
    """Streams that nobody can repeat; each call gives a new one, whatever the names."""

    @property
    def reproducible(self) -> bool:
        """Never."""
        return False

    def generator(self, *names: str | int) -> np.random.Generator:
        """Return a stream that has not been seen before. The names are not used."""
        return np.random.Generator(np.random.Philox(key=secrets.randbits(128)))


@dataclass(frozen=True, slots=True)
class FixedNoise:
    """Streams that depend on a seed, for tests alone: a run with them protects nobody."""

    seed: int
    names: tuple[str | int, ...] = ()

    @property
    def reproducible(self) -> bool:
        """Always."""
        return True

    def generator(self, *names: str | int) -> np.random.Generator:
        """Return the stream of the names; the same names give the same stream again."""
        return stream(self.seed, "insecure-noise", *self.names, *names)


def secure() -> NoiseSource:
    """Return the source that every run uses."""
    return SecureNoise()


def fixed(seed: int, *names: str | int) -> NoiseSource:
    """Return a source for tests, which marks a run as not private.

    Example:
        >>> a, b = fixed(0).generator("noise", "anna", 1), fixed(0).generator("noise", "ben", 1)
        >>> bool(a.random() == b.random())
        False
    """
    return FixedNoise(seed, names)


def add_gaussian(values: Tensor, std: float, noise: np.random.Generator) -> None:
    """Add independent Gaussian noise to every value, in place.

    Args:
        values: Float64, contiguous, on any device.
        std: Standard deviation, 0 or more.
        noise: The stream; it goes on by as many draws as there are values.

    Raises:
        ValueError: If the values are not float64, or ``std`` is negative or NaN.
    """
    if values.dtype != torch.float64:
        raise ValueError(f"noise is added in float64 and rounded afterwards, got {values.dtype}")
    if not 0 <= std < float("inf"):
        raise ValueError(f"the noise's standard deviation must be 0 or more, got {std}")
    flat = values.view(-1)
    for start in range(0, len(flat), _BLOCK):
        part = flat[start : start + _BLOCK]
        drawn = torch.from_numpy(noise.standard_normal(len(part)))
        part.add_(drawn.to(part.device), alpha=std)


def poisson_sample(
    num_units: int, sampling_probability: float, noise: np.random.Generator
) -> tuple[int, ...]:
    """Take each unit by itself with the same probability; nobody may be taken at all.

    Accounting by amplification through sampling holds for this way of drawing only, and only while
    the stream stays secret.

    Args:
        num_units: How many there are.
        sampling_probability: Above 0, at most 1.
        noise: The stream.

    Returns:
        The places of those taken, in order.

    Raises:
        ValueError: If the probability is out of range.
    """
    if not 0 < sampling_probability <= 1:
        raise ValueError(
            f"sampling_probability must be above 0 and at most 1, got {sampling_probability}"
        )
    return tuple(np.flatnonzero(noise.random(num_units) < sampling_probability).tolist())
