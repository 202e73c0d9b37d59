"""From the log-probabilities of a batch of groups to one loss.

A batch's loss is the mean over its groups of the mean over each group's examples (completions, or
pairs for DPO), so a group counts the same however many completions it has.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pkgllm.training.losses import dpo_loss, kl_baseline, kto_loss, sft_loss


@dataclass(frozen=True, slots=True)
class ScoredGroups:
    """The log-probabilities of every completion of a batch of groups, in nats."""

    policy: Tensor
    """With gradient. Shape ``(completions,)``."""
    reference: Tensor
    """Of the frozen base model. Shape ``(completions,)``."""
    desirable: Tensor
    """Shape ``(completions,)``, bool."""
    group_index: Tensor
    """The group of each completion. Shape ``(completions,)``, int64."""
    num_groups: int
    mismatched_log_ratio: Tensor
    """Log-ratios of mismatched pairs, without gradient; empty where not asked for."""

    @property
    def log_ratio(self) -> Tensor:
        """Policy against reference, shape ``(completions,)``."""
        return self.policy - self.reference


Loss = Callable[[ScoredGroups], Tensor]


@dataclass(frozen=True, slots=True)
class Objective:
    """What local training minimises."""

    loss: Loss
    """Mean over groups, shape ``()``."""
    needs_reference: bool
    needs_mismatched: bool


def mean_over_groups(values: Tensor, group_index: Tensor, num_groups: int) -> Tensor:
    """Return the mean over groups of each group's mean; a group without values counts 0.

    Example:
        >>> values, groups = torch.tensor([1.0, 3.0, 10.0]), torch.tensor([0, 0, 1])
        >>> mean_over_groups(values, groups, 2).item()
        6.0
    """
    sums = values.new_zeros(num_groups).index_add(0, group_index, values)
    counts = values.new_zeros(num_groups).index_add(0, group_index, torch.ones_like(values))
    return (sums / counts.clamp(min=1)).mean()


def _likelihood(groups: ScoredGroups) -> Tensor:
    kept = groups.desirable
    return mean_over_groups(
        sft_loss(groups.policy[kept]), groups.group_index[kept], groups.num_groups
    )


def _with_likelihood(loss: Loss, nll_weight: float) -> Loss:
    if nll_weight == 0:
        return loss
    return lambda groups: loss(groups) + nll_weight * _likelihood(groups)


def _kahneman_tversky(baseline: Callable[[ScoredGroups], Tensor | float], **weights: float) -> Loss:
    def loss(groups: ScoredGroups) -> Tensor:
        losses = kto_loss(
            groups.log_ratio, groups.desirable, kl_baseline=baseline(groups), **weights
        )
        return mean_over_groups(losses, groups.group_index, groups.num_groups)

    return loss


def kto(
    *, beta: float, desirable_weight: float, undesirable_weight: float, nll_weight: float
) -> Objective:
    """Return KTO; its KL baseline is estimated from the mismatched completions of the batch."""
    loss = _kahneman_tversky(
        lambda groups: kl_baseline(groups.mismatched_log_ratio),
        beta=beta,
        desirable_weight=desirable_weight,
        undesirable_weight=undesirable_weight,
    )
    return Objective(
        _with_likelihood(loss, nll_weight), needs_reference=True, needs_mismatched=True
    )


def apo_zero(
    *, beta: float, desirable_weight: float, undesirable_weight: float, nll_weight: float
) -> Objective:
    """Return KTO with the KL baseline fixed at 0, which does not couple the batch."""
    loss = _kahneman_tversky(
        lambda groups: 0.0,
        beta=beta,
        desirable_weight=desirable_weight,
        undesirable_weight=undesirable_weight,
    )
    return Objective(
        _with_likelihood(loss, nll_weight), needs_reference=True, needs_mismatched=False
    )


def dpo(*, beta: float, nll_weight: float) -> Objective:
    """Return DPO over every pair of a desirable and an undesirable completion of a group."""

    def loss(groups: ScoredGroups) -> Tensor:
        same_group = groups.group_index[:, None] == groups.group_index[None, :]
        pair = same_group & groups.desirable[:, None] & ~groups.desirable[None, :]
        winners, losers = pair.nonzero(as_tuple=True)
        losses = dpo_loss(groups.log_ratio[winners], groups.log_ratio[losers], beta=beta)
        return mean_over_groups(losses, groups.group_index[winners], groups.num_groups)

    return Objective(
        _with_likelihood(loss, nll_weight), needs_reference=True, needs_mismatched=False
    )


def sft() -> Objective:
    """Return the likelihood of the desirable completions alone."""
    return Objective(_likelihood, needs_reference=False, needs_mismatched=False)
