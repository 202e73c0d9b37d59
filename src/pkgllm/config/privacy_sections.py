"""What is promised to whom: nothing, or differential privacy of an example or of a client."""

from collections.abc import Iterator
from typing import Annotated, Literal, TypeGuard

from pydantic import Field, model_validator

from pkgllm.config.section import Positive, PositiveFloat, Section

Probability = Annotated[float, Field(gt=0, lt=1)]


class NoPrivacy(Section):
    """No guarantee: updates leave the clients as they are."""

    name: Literal["none"]
    report_private_metrics: bool = False
    """Let losses and counts leave the clients; marks the run as not private."""


class _Budgeted(Section):
    """What both units have in common."""

    delta: Probability
    """Probability that the bound of epsilon does not hold; must be below 1 / number of units."""
    clip_norm: PositiveFloat
    """Longest contribution of one unit to a sum; longer ones are scaled down to it."""
    noise_multiplier: PositiveFloat | None = None
    """Standard deviation of the noise on the sum, by ``clip_norm``; this or ``target_epsilon``."""
    target_epsilon: PositiveFloat | None = None
    """Epsilon of the whole run, from which the noise is computed before it begins. It is also the
    budget where ``max_epsilon`` is absent."""
    max_epsilon: PositiveFloat | None = None
    """Budget: the run stops before the round that would exceed it. In a deployment each client
    keeps to it by itself, over all runs."""
    accountant: Literal["prv", "rdp"] = "prv"
    """What computes epsilon: numerical composition (Gopi et al. 2021), or Rényi divergences."""
    report_private_metrics: bool = False
    """Let losses and counts leave the clients without noise; marks the run as not private."""

    @property
    def budget(self) -> float | None:
        """Epsilon that no round may exceed."""
        return self.max_epsilon if self.max_epsilon is not None else self.target_epsilon

    @model_validator(mode="after")
    def _one_noise(self) -> "_Budgeted":
        if problems := list(_noise_problems(self)):
            raise ValueError("\n".join(problems))
        return self


def _noise_problems(privacy: _Budgeted) -> Iterator[str]:
    given = (privacy.noise_multiplier, privacy.target_epsilon)
    if given == (None, None):
        yield (
            "must hold noise_multiplier or target_epsilon, has neither; give the noise itself, or "
            "the epsilon that it is computed from"
        )
    elif None not in given:
        yield (
            "must hold one of noise_multiplier and target_epsilon, has both, "
            f"{privacy.noise_multiplier:g} and {privacy.target_epsilon:g}; leave one out"
        )
    elif (
        privacy.max_epsilon is not None
        and privacy.target_epsilon is not None
        and privacy.max_epsilon < privacy.target_epsilon
    ):
        yield (
            f"max_epsilon must be at least target_epsilon, {privacy.target_epsilon:g}, got "
            f"{privacy.max_epsilon:g}, with which the last rounds would never be done; leave it out"
        )


class ExamplePrivacy(_Budgeted):
    """Differential privacy of one example, a group of a client: DP-SGD before anything is sent.

    The noise is added on the client, so the guarantee holds against the server as well, and a draw
    of clients does not strengthen it. How many groups a client has counts as known.
    """

    name: Literal["example"]
    expected_batch_size: Positive
    """Groups that a step draws on average, each independently; the sum is divided by it, whatever
    was drawn. Stands in the place of ``training.groups_per_step``."""
    max_groups_per_fact: Positive = 2
    """Groups that one fact may enter; the epsilon of a fact is computed from it."""


class AdaptiveClipping(Section):
    """A clip norm that follows a quantile of the updates' norms (Andrew et al. 2021)."""

    target_quantile: Probability = 0.5
    """Share of the updates that shall not be clipped."""
    learning_rate: PositiveFloat = 0.2
    """By how much the clip norm's logarithm changes for each unit of the share's error."""
    count_noise_std: PositiveFloat
    """Standard deviation of the noise on the number of updates within the clip norm; the paper
    advises a twentieth of the expected cohort. It is part of the budget: the updates get as much
    more noise as makes up for it."""


class ClientPrivacy(_Budgeted):
    """Differential privacy of one client with all that it holds: noise on the sum of updates.

    The sum is divided by ``mode.cohort_size``, whoever came. With ``mechanism: central`` every
    training client is drawn independently, with probability ``mode.cohort_size`` by their number.
    With ``mechanism: local`` cohorts have that size, and who takes part counts as known.
    """

    name: Literal["client"]
    mechanism: Literal["central", "local"] = "central"
    """Who adds the noise: the server, which must be trusted, or every client its share of it before
    it sends. Shares are sized by ``mode.min_updates``: so many make up ``noise_multiplier`` on the
    sum, and one by itself has it by the root of that number. ``target_epsilon`` and ``max_epsilon``
    are those of sums; with 1 the server, which sees single shares, has no better view."""
    adaptive_clipping: AdaptiveClipping | None = None
    """When absent ``clip_norm`` stays as it is; otherwise that is where it begins. Not with
    ``mechanism: local``."""


Privacy = Annotated[NoPrivacy | ExamplePrivacy | ClientPrivacy, Field(discriminator="name")]


def has_local_noise(privacy: Privacy) -> TypeGuard[ClientPrivacy]:
    """Return whether every client adds its share of the noise before it sends."""
    return isinstance(privacy, ClientPrivacy) and privacy.mechanism == "local"
