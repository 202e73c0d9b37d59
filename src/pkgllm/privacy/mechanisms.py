"""What a private release is, apart from what prices it.

Everything here is a Poisson-subsampled Gaussian mechanism: every unit (an example, or a client)
takes part in a step with the same probability, independently of the others; what the drawn units
contribute is clipped to a norm and summed; and Gaussian noise of standard deviation
``noise_multiplier * clip_norm`` is added to the sum. The clip norm and the number by which the sum
is divided afterwards do not matter to privacy, so they do not stand here. Where it is known who
takes part, the probability is 1 and only what they contribute is hidden.
"""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal

Unit = Literal["example", "client"]
"""Whose taking part is hidden: one group of a client, or a client with all that it holds."""


Accountant = Literal["prv", "rdp"]
"""What prices releases; see :mod:`~pkgllm.privacy.accounting`."""


RUN = "run"
"""To whom releases are charged where the unit is a client and the draw of cohorts hides it: all
clients spend together."""


class NeighboringRelation(StrEnum):
    """Which two data sets must not be told apart."""

    ADD_OR_REMOVE_ONE = "add_or_remove_one"
    """The one is the other without one unit; Poisson sampling is priced for no other relation."""
    ZERO_OUT_ONE = "zero_out_one"
    """The same units take part, and in the one the contribution of one of them is nothing: who
    takes part is known, and what it contributes is hidden. Sampling does not help."""


@dataclass(frozen=True, slots=True, order=True)
class Mechanism:
    """A number of equal steps of the Poisson-subsampled Gaussian mechanism.

    Raises:
        ValueError: If a number is out of range.
    """

    noise_multiplier: float
    """Standard deviation of the noise on the sum, by clip norm; 0 for no noise."""
    sampling_probability: float
    """Of each unit in each step."""
    steps: int = 1
    neighboring_relation: NeighboringRelation = NeighboringRelation.ADD_OR_REMOVE_ONE

    def __post_init__(self) -> None:
        if not 0 <= self.noise_multiplier < math.inf:
            raise ValueError(
                f"noise_multiplier must be at least 0 and finite, got {self.noise_multiplier}"
            )
        if not 0 <= self.sampling_probability <= 1:
            raise ValueError(
                f"sampling_probability must be from 0 to 1, got {self.sampling_probability}"
            )
        if self.steps < 0:
            raise ValueError(f"steps must be at least 0, got {self.steps}")
        zeroed_out = self.neighboring_relation is NeighboringRelation.ZERO_OUT_ONE
        if zeroed_out and self.sampling_probability != 1:
            raise ValueError(
                "sampling_probability must be 1 where who takes part is known, got "
                f"{self.sampling_probability}"
            )

    def dominates(self, other: "Mechanism") -> bool:
        """Whether this one costs at least as much as another, whatever delta is.

        Less noise, a larger sampling probability and more steps all cost more.
        """
        return (
            self.noise_multiplier <= other.noise_multiplier
            and self.sampling_probability >= other.sampling_probability
            and self.steps >= other.steps
        )


@dataclass(frozen=True, slots=True)
class SamplingSchedule:
    """A mechanism whose noise is not fixed yet."""

    sampling_probability: float
    steps: int

    def mechanism(self, noise_multiplier: float) -> Mechanism:
        """Return the mechanism with this noise."""
        return Mechanism(noise_multiplier, self.sampling_probability, self.steps)


History = tuple[Mechanism, ...]
"""All that was released about somebody; the order does not matter to what it costs."""


def merge(mechanisms: Iterable[Mechanism]) -> History:
    """Return the same releases with equal steps counted together, in one order.

    Example:
        >>> merge([Mechanism(2.0, 0.1), Mechanism(1.0, 0.1, 3), Mechanism(2.0, 0.1, 4)])[1].steps
        5
    """
    steps: Counter[Mechanism] = Counter()
    for mechanism in mechanisms:
        if mechanism.steps and mechanism.sampling_probability:
            steps[replace(mechanism, steps=1)] += mechanism.steps
    return tuple(sorted(replace(one, steps=count) for one, count in steps.items()))


def fact_mechanism(mechanism: Mechanism, max_groups: int) -> Mechanism:
    r"""Return a mechanism that costs at least what an example-level one costs a fact.

    A fact that enters ``k`` groups is in the sum once for each that is drawn, so its absence moves
    the sum by at most ``m`` clip norms with ``m`` binomial: against the noise ``N(0, z^2)`` stands
    the mixture ``P = sum_m Binom(m; k, q) N(m, z^2)`` (Charles et al. 2024, arXiv:2407.07737,
    theorem 4). Let ``P'`` be what it becomes when every ``m >= 1`` is moved up to ``k``: a mixture
    of ``0`` and ``k`` with probability ``1 - (1 - q)^k``, which is a Poisson-subsampled Gaussian
    mechanism with noise multiplier ``z / k``. It dominates. The likelihood ratio of ``P`` and
    ``Q = N(0, z^2)`` rises with ``x``, so the hockey-stick divergence is reached on a half-line:
    ``H_a(P, Q) = P(x > t) - a Q(x > t) <= P'(x > t) - a Q(x > t) <= H_a(P', Q)``, since moving mass
    up raises every upper tail; in the same way ``H_a(Q, P) = Q(x < t) - a P(x < t) <= H_a(Q, P')``.
    Domination of each step carries over to their composition.

    The neighbouring data lack every group that the fact enters, in its prompt or its completions.
    For a fact that enters fewer groups the bound holds all the more.

    Args:
        mechanism: What is released of the examples.
        max_groups: Groups that a fact enters at most, ``k``.

    Example:
        >>> fact = fact_mechanism(Mechanism(2.0, 0.5, 10), 2)
        >>> fact.noise_multiplier, round(fact.sampling_probability, 12), fact.steps
        (1.0, 0.75, 10)
    """
    if max_groups < 1:
        raise ValueError(f"max_groups must be at least 1, got {max_groups}")
    probability = mechanism.sampling_probability
    if 0 < probability < 1 and max_groups > 1:
        # The difference of 1 and a power near it would lose the digits that count.
        probability = -math.expm1(max_groups * math.log1p(-probability))
    return replace(
        mechanism,
        noise_multiplier=mechanism.noise_multiplier / max_groups,
        sampling_probability=probability,
    )


def share_mechanism(mechanism: Mechanism, min_shares: int) -> Mechanism:
    """Return what one client's share of the noise is, for whoever sees that share by itself.

    The shares' variances add up to that of the sum, so a share has the part ``1 / min_shares`` of
    it; the client's contribution is as long as in the sum.

    Args:
        mechanism: What is released of a sum.
        min_shares: Shares that make up the noise.

    Example:
        >>> sum_of_four = Mechanism(2.0, 1.0, neighboring_relation=NeighboringRelation.ZERO_OUT_ONE)
        >>> share_mechanism(sum_of_four, 4).noise_multiplier
        1.0
    """
    if min_shares < 1:
        raise ValueError(f"min_shares must be at least 1, got {min_shares}")
    return replace(mechanism, noise_multiplier=mechanism.noise_multiplier / math.sqrt(min_shares))
