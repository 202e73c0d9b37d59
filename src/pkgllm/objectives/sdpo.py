"""Softmax-DPO: against all undesirable completions of a group at once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pkgllm.bounds import NotNegativeFloat, PositiveFloat
from pkgllm.objectives.objective import Objective

if TYPE_CHECKING:
    from torch import Tensor

    from pkgllm.objectives.scored_groups import ScoredGroups


def sdpo_loss(
    desirable_log_ratio: Tensor,
    undesirable_log_ratio: Tensor,
    same_group: Tensor,
    *,
    beta: float,
) -> Tensor:
    r"""Return the softmax direct preference loss: one desirable completion against several others.

    With :math:`U` the undesirable completions of the example's group,

    .. math::
        \ell = -\log \sigma\Bigl(-\log \sum_{u \in U} \exp(\beta (r_u - r_D))\Bigr)
                   = \log\Bigl(1 + \sum_{u \in U} \exp(\beta (r_u - r_D))\Bigr).

    With one undesirable completion it is :func:`~pkgllm.objectives.dpo.dpo_loss`; with none the sum
    is empty and the loss 0.

    Source: Chen et al. 2024, arXiv:2406.09215, the loss that the paper calls L_S-DPO.

    Args:
        desirable_log_ratio: Nats. Shape ``(examples,)``.
        undesirable_log_ratio: Nats. Shape ``(undesirable,)``.
        same_group: Which undesirable completions each example stands against. Shape
            ``(examples, undesirable)``, bool.
        beta: How strongly the policy is held to the reference; positive.

    Returns:
        Shape ``(examples,)``, at least 0.

    Example:
        >>> import torch
        >>> losses = sdpo_loss(
        ...     torch.tensor([2.0, 2.0]),
        ...     torch.tensor([1.0, 0.0]),
        ...     torch.tensor([[True, True], [False, False]]),
        ...     beta=1.0,
        ... )
        >>> [round(loss, 4) for loss in losses.tolist()]
        [0.4076, 0.0]
    """
    from torch.nn.functional import logsigmoid

    differences = beta * (undesirable_log_ratio[None, :] - desirable_log_ratio[:, None])
    alone = ~same_group.any(-1)
    # The gradient of a row of nothing but -inf is NaN, so a row without a pair is not masked.
    masked = ~same_group & ~alone[:, None]
    log_sum = differences.masked_fill(masked, -math.inf).logsumexp(-1)
    return (-logsigmoid(-log_sum)).masked_fill(alone, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sdpo(Objective):
    """Softmax-DPO: against all undesirable completions of a group at once (Chen et al. 2024)."""

    name: Literal["sdpo"] = "sdpo"
    beta: PositiveFloat = 0.1
    """How strongly the policy is held to the reference."""
    nll_weight: NotNegativeFloat = 0.0
    """Weight of the likelihood of the desirable completions; 0 is the paper's form."""

    citation = (
        "Chen, Tan, Zhang, Yang, Sheng, Zhang, Wang and Chua 2024, On Softmax Direct Preference "
        "Optimization for Recommendation, NeurIPS, arXiv:2406.09215"
    )
    needs_pairs = True
    couples_examples = False

    def loss(self, groups: ScoredGroups, kl_baseline: float | None = None) -> Tensor:
        """See :func:`sdpo_loss`.

        No shape depends on the data, so the loss can be mapped over many batches of one size and
        does not make a GPU wait.
        """
        losses = sdpo_loss(groups.log_ratio, groups.log_ratio, groups.pairs, beta=self.beta)
        return groups.with_likelihood(
            groups.mean(losses, counted=groups.desirable), self.nll_weight
        )
