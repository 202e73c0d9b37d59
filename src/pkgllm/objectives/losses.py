r"""The objectives as pure functions on log-probabilities.

Throughout, a log-probability is the sum over a completion's tokens, in nats, and a log-ratio is
``log policy(y|x) - log reference(y|x)``. Every function returns one loss per example and leaves
the mean to its caller.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def kl_baseline(mismatched_log_ratio: Tensor) -> Tensor:
    r"""Return KTO's estimate of KL(policy || reference), at least 0 and without gradient.

    .. math:: z = \max(0, \tfrac1m \sum_j \log\pi(y'_j|x_j) - \log\pi_0(y'_j|x_j))

    over completions :math:`y'_j` of other prompts.

    Source: Ethayarajh et al. 2024, arXiv:2402.01306, section 4.1.

    Args:
        mismatched_log_ratio: Of mismatched pairs, at least one, nats. Shape ``(pairs,)``.

    Returns:
        The baseline in nats, shape ``()``.

    Raises:
        ValueError: If there is no pair, since the mean would not exist.
    """
    if mismatched_log_ratio.numel() == 0:
        raise ValueError("the KL baseline needs at least one mismatched pair, got none")
    return mismatched_log_ratio.detach().mean().clamp(min=0)


def kto_loss(
    log_ratio: Tensor,
    desirable: Tensor,
    *,
    kl_baseline: Tensor | float,
    beta: float,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Tensor:
    r"""Return the Kahneman-Tversky loss of single-response feedback.

    With :math:`r` the log-ratio, :math:`z` the KL baseline and :math:`\lambda` the weight of the
    example's class,

    .. math::
        \ell = \lambda_D (1 - \sigma(\beta (r - z)))  \quad\text{if desirable, else}\quad
        \ell = \lambda_U (1 - \sigma(\beta (z - r))).

    Source: Ethayarajh et al. 2024, arXiv:2402.01306, section 4.1. With ``kl_baseline=0`` it is
    APO-zero for unpaired feedback (D'Oosterlinck et al. 2024, arXiv:2408.06266).

    Not per-example when the baseline is estimated from the batch: the gradient of one example then
    moves with the others, and clipping per-example gradients does not bound sensitivity.

    Args:
        log_ratio: Nats. Shape ``(examples,)``.
        desirable: True where the person accepted the completion. Shape ``(examples,)``, bool.
        kl_baseline: Nats, at least 0. Treated as a constant. Shape ``()``.
        beta: How strongly the policy is held to the reference; positive.
        desirable_weight: Weight of a desirable completion.
        undesirable_weight: Weight of an undesirable one.

    Returns:
        Shape ``(examples,)``, each in ``[0, weight]``.

    Example:
        >>> losses = kto_loss(
        ...     torch.tensor([2.0, -1.0]), torch.tensor([True, False]), kl_baseline=0.5, beta=0.1
        ... )
        >>> [round(loss, 4) for loss in losses.tolist()]
        [0.4626, 0.4626]
    """
    advantage = beta * (log_ratio - kl_baseline)
    return torch.where(
        desirable,
        desirable_weight * (1 - torch.sigmoid(advantage)),
        undesirable_weight * (1 - torch.sigmoid(-advantage)),
    )


def dpo_loss(desirable_log_ratio: Tensor, undesirable_log_ratio: Tensor, *, beta: float) -> Tensor:
    r"""Return the direct preference loss of pairs.

    .. math:: \ell = -\log \sigma(\beta (r_D - r_U))

    Source: Rafailov et al. 2023, arXiv:2305.18290, eq. 7.

    Args:
        desirable_log_ratio: Nats. Shape ``(pairs,)``.
        undesirable_log_ratio: Nats. Shape ``(pairs,)``.
        beta: How strongly the policy is held to the reference; positive.

    Returns:
        Shape ``(pairs,)``.
    """
    return -F.logsigmoid(beta * (desirable_log_ratio - undesirable_log_ratio))


def sdpo_loss(
    desirable_log_ratio: Tensor,
    undesirable_log_ratio: Tensor,
    same_group: Tensor,
    *,
    beta: float,
) -> Tensor:
    r"""Return the softmax direct preference loss: one desirable completion against several others.

    With :math:`U` the undesirable completions of the example's group,

    .. math:: \ell = -\log \sigma\Bigl(-\log \sum_{u \in U} \exp(\beta (r_u - r_D))\Bigr)
                   = \log\Bigl(1 + \sum_{u \in U} \exp(\beta (r_u - r_D))\Bigr).

    With one undesirable completion it is :func:`dpo_loss`; with none the sum is empty and the
    loss 0.

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
        >>> losses = sdpo_loss(
        ...     torch.tensor([2.0, 2.0]),
        ...     torch.tensor([1.0, 0.0]),
        ...     torch.tensor([[True, True], [False, False]]),
        ...     beta=1.0,
        ... )
        >>> [round(loss, 4) for loss in losses.tolist()]
        [0.4076, 0.0]
    """
    lags = beta * (undesirable_log_ratio[None, :] - desirable_log_ratio[:, None])
    alone = ~same_group.any(-1)
    # The gradient of a row of nothing but -inf is NaN, so a row without a pair stays as it is.
    left_out = ~same_group & ~alone[:, None]
    log_sum = lags.masked_fill(left_out, -torch.inf).logsumexp(-1)
    return (-F.logsigmoid(-log_sum)).masked_fill(alone, 0)


def sft_loss(log_probability: Tensor) -> Tensor:
    """Return the negative log-likelihood of each completion, nats. Shape ``(examples,)``."""
    return -log_probability
