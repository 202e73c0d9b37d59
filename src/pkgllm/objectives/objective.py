"""From the log-probabilities of a batch of groups to one loss.

A batch's loss is the mean over its groups of the mean over each group's examples, so a group counts
the same however many completions it has. An example is a completion; for DPO a pair, for S-DPO a
desirable completion with all undesirable ones.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from pkgllm.errors import FederationError
from pkgllm.objectives.losses import dpo_loss, kl_baseline, kto_loss, sdpo_loss, sft_loss


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
Pairs = Literal["all", "matched"]


@dataclass(frozen=True, slots=True)
class Objective:
    """What local training minimises."""

    loss: Loss
    """Mean over groups, shape ``()``."""
    needs_reference: bool
    needs_mismatched: bool
    loss_by_baseline: Callable[[float], Loss] | None = None
    """The loss of a round by the KL baseline that the server sends for it; None where the loss
    takes none. ``loss`` then says that it is missing."""

    def of_round(self, kl_baseline: float | None) -> "Objective":
        """Return the objective with the KL baseline of a round, which is a constant in it.

        Args:
            kl_baseline: Nats; None where the server sent none.

        Raises:
            FederationError: If a baseline is needed and missing, or sent and not taken: server and
                client then train for different objectives.
            ValueError: If the baseline is not finite or below 0.
        """
        if self.loss_by_baseline is None:
            if kl_baseline is not None:
                raise FederationError(
                    f"the server sent the KL baseline {kl_baseline:g}, and the objective takes "
                    "none; give both sides the same objective"
                )
            return self
        if kl_baseline is None:
            raise FederationError(_MISSING_BASELINE)
        if not (math.isfinite(kl_baseline) and kl_baseline >= 0):
            raise ValueError(f"kl_baseline must be finite and at least 0, got {kl_baseline}")
        return replace(self, loss=self.loss_by_baseline(kl_baseline), loss_by_baseline=None)


_MISSING_BASELINE = (
    "the objective takes the KL baseline of each round from the server, which sent none; give both "
    "sides the same objective"
)


def mean_over_groups(
    values: Tensor, group_index: Tensor, num_groups: int, counted: Tensor | None = None
) -> Tensor:
    """Return the mean over groups of each group's mean; a group without values counts 0.

    Args:
        values: One for each example. Shape ``(examples,)``.
        group_index: The group of each example. Shape ``(examples,)``, int64.
        num_groups: Groups, those without examples included.
        counted: Which values take part; all when absent. Shape ``(examples,)``, bool.

    Returns:
        Shape ``()``.

    Example:
        >>> values, groups = torch.tensor([1.0, 3.0, 10.0]), torch.tensor([0, 0, 1])
        >>> mean_over_groups(values, groups, 2).item()
        6.0
    """
    weights = torch.ones_like(values)
    if counted is not None:
        values, weights = values.where(counted, 0), weights.where(counted, 0)
    sums = values.new_zeros(num_groups).index_add(0, group_index, values)
    counts = values.new_zeros(num_groups).index_add(0, group_index, weights)
    return (sums / counts.clamp(min=1)).mean()


def _likelihood(groups: ScoredGroups) -> Tensor:
    return mean_over_groups(
        sft_loss(groups.policy), groups.group_index, groups.num_groups, groups.desirable
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


def public_kto(
    *, beta: float, desirable_weight: float, undesirable_weight: float, nll_weight: float
) -> Objective:
    """Return KTO whose KL baseline the server sends for each round, computed on public prompts.

    It has no loss before :meth:`Objective.of_round`; then an example's gradient depends on that
    example alone. See :mod:`~pkgllm.training.public_baseline`.
    """
    return Objective(
        _without_baseline,
        needs_reference=True,
        needs_mismatched=False,
        loss_by_baseline=partial(
            _kto_at,
            beta=beta,
            desirable_weight=desirable_weight,
            undesirable_weight=undesirable_weight,
            nll_weight=nll_weight,
        ),
    )


def apo_zero(
    *, beta: float, desirable_weight: float, undesirable_weight: float, nll_weight: float
) -> Objective:
    """Return KTO with the KL baseline fixed at 0, which does not couple the batch."""
    loss = _kto_at(
        0.0,
        beta=beta,
        desirable_weight=desirable_weight,
        undesirable_weight=undesirable_weight,
        nll_weight=nll_weight,
    )
    return Objective(loss, needs_reference=True, needs_mismatched=False)


def _kto_at(kl_baseline: float, *, nll_weight: float, **weights: float) -> Loss:
    loss = _kahneman_tversky(lambda groups: kl_baseline, **weights)
    return _with_likelihood(loss, nll_weight)


def _without_baseline(groups: ScoredGroups) -> Tensor:
    raise FederationError(_MISSING_BASELINE)


def _all_pairs(groups: ScoredGroups) -> Tensor:
    """Return where the row is desirable and the column undesirable in the same group.

    Shape ``(completions, completions)``, bool.
    """
    same_group = groups.group_index[:, None] == groups.group_index[None, :]
    return same_group & groups.desirable[:, None] & ~groups.desirable[None, :]


def dpo(*, beta: float, nll_weight: float, pairs: Pairs = "all") -> Objective:
    """Return DPO over pairs of a desirable and an undesirable completion of a group.

    Args:
        beta: How strongly the policy is held to the reference; positive.
        nll_weight: Weight of the likelihood of the desirable completions, also of unpaired ones.
        pairs: ``all`` takes every pair of a group; ``matched`` its i-th desirable with its i-th
            undesirable completion, and leaves out what is then over, the form of pair data.
    """

    def loss(groups: ScoredGroups) -> Tensor:
        pair = _all_pairs(groups)
        if pairs == "matched":
            # Along a column a pair's number is that of its winner, along a row that of its loser.
            pair &= pair.cumsum(0) == pair.cumsum(1)
        winners, losers = pair.nonzero(as_tuple=True)
        losses = dpo_loss(groups.log_ratio[winners], groups.log_ratio[losers], beta=beta)
        return mean_over_groups(losses, groups.group_index[winners], groups.num_groups)

    return Objective(
        _with_likelihood(loss, nll_weight), needs_reference=True, needs_mismatched=False
    )


def sdpo(*, beta: float, nll_weight: float) -> Objective:
    """Return S-DPO: each desirable completion against all undesirable ones of its group.

    No shape depends on the data, the likelihood term aside, so the loss can be mapped over many
    batches of one size and never makes a GPU wait.
    """

    def loss(groups: ScoredGroups) -> Tensor:
        ratio = groups.log_ratio
        losses = sdpo_loss(ratio, ratio, _all_pairs(groups), beta=beta)
        return mean_over_groups(losses, groups.group_index, groups.num_groups, groups.desirable)

    return Objective(
        _with_likelihood(loss, nll_weight), needs_reference=True, needs_mismatched=False
    )


def sft() -> Objective:
    """Return the likelihood of the desirable completions alone."""
    return Objective(_likelihood, needs_reference=False, needs_mismatched=False)
