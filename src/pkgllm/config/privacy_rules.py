"""What a privacy unit does not go with, why, and what to use in its place.

These are combinations that would run, and whose epsilon would be wrong. So they are errors.
"""

from collections.abc import Iterator
from typing import Literal

from pkgllm.config.data_sections import Synthetic
from pkgllm.config.layout_sections import Layout
from pkgllm.config.mode_sections import Mode
from pkgllm.config.observation_sections import Observation
from pkgllm.config.privacy_sections import ClientPrivacy, ExamplePrivacy, NoPrivacy, Privacy
from pkgllm.objectives.objective import Objective


def privacy_problems(
    privacy: Privacy,
    objective: Objective,
    mode: Mode,
    engine: Literal["lanes", "sequential", "trl"],
) -> Iterator[str]:
    """Yield what is wrong with the choice of privacy beside the other choices.

    Args:
        privacy: The choice.
        objective: What is trained for.
        mode: Who trains with whom.
        engine: How clients are trained.
    """
    weighting = mode.weighting if mode.name == "federated" else "uniform"
    if isinstance(privacy, NoPrivacy):
        if weighting == "examples" and not privacy.report_private_metrics:
            yield (
                "mode.weighting examples sends private counts; set privacy.report_private_metrics "
                "to mark the run as not private, or use uniform"
            )
        return
    if weighting == "examples":
        yield (
            f"mode.weighting must be uniform with privacy.name {privacy.name}, got examples: a "
            "weight that depends on a private count is no part of what is clipped and noised"
        )
    if isinstance(privacy, ClientPrivacy):
        yield from _client_problems(privacy, mode)
        return
    if mode.name == "local":
        yield (
            "mode.name must be federated or centralized with privacy.name example, got local, in "
            "which nothing leaves a client; set privacy.name to none"
        )
    if objective.couples_examples:
        yield (
            "objective.name kto with kl_baseline batch does not go with privacy.name example: the "
            "baseline is a mean over the batch, so one example moves the gradient of every other, "
            "and clipping does not bound what it does; use apo_zero, or set objective.kl_baseline "
            "to public"
        )
    if engine != "lanes":
        yield (
            f"training.engine must be lanes with privacy.name example, got {engine}, which has "
            "no gradient of each example by itself"
        )


def synthetic_problems(privacy: Privacy, synthetic: Synthetic) -> Iterator[str]:
    """Yield why made-up groups do not go with the unit ``example``."""
    if isinstance(privacy, ExamplePrivacy) and synthetic.is_used:
        yield (
            "synthetic.graph_edits and synthetic.rule_facts must be 0 with privacy.name example: "
            "every made-up group depends on many facts, so a fact would enter more groups than "
            "max_groups_per_fact allows; set them to 0, or use privacy.name client"
        )


def exposure_problems(privacy: Privacy, layout: Layout, observation: Observation) -> Iterator[str]:
    """Yield what would tell of private data past the noise, or change whose they are."""
    if isinstance(privacy, NoPrivacy):
        return
    if layout.name != "by_client":
        yield (
            f"layout {layout.name} does not go with privacy.name {privacy.name}: what a client "
            "trains on then depends on others, or on more than the accounting knows; use layout "
            "by_client"
        )
    if observation.evaluate_every and not privacy.report_private_metrics:
        yield (
            f"observation.evaluate_every must be 0 with privacy.name {privacy.name}, because ranks "
            "of private facts leave without noise; set it to 0, or privacy.report_private_metrics "
            "to mark the run as not private"
        )


def _client_problems(privacy: ClientPrivacy, mode: Mode) -> Iterator[str]:
    if mode.name != "federated":
        instead = "example or none" if mode.name == "centralized" else "none"
        yield (
            f"mode.name must be federated with privacy.name client, got {mode.name}, in which no "
            f"sum of updates is made; set privacy.name to {instead}"
        )
    elif not mode.strategy.linear:
        yield (
            f"mode.strategy {mode.strategy.name} does not go with privacy.name client: it chooses "
            "or weights updates by their values, so the clip norm does not bound what one client "
            "does; use fedavg or another strategy that takes a mean"
        )
    clipping = privacy.adaptive_clipping
    if clipping is not None and privacy.mechanism == "local":
        yield (
            "privacy.adaptive_clipping does not go with privacy.mechanism local: the number of "
            "updates within the clip norm would leave the clients without noise; leave it out, or "
            "use central"
        )
    if (
        clipping is not None
        and privacy.noise_multiplier is not None
        and 2 * clipping.count_noise_std <= privacy.noise_multiplier
    ):
        yield (
            "privacy.adaptive_clipping.count_noise_std must be above half of "
            f"privacy.noise_multiplier, {privacy.noise_multiplier:g}, or the count alone would "
            f"spend all of the budget, got {clipping.count_noise_std:g}; raise it"
        )
