"""Kahneman-Tversky optimisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pkgllm.bounds import NotNegativeFloat, PositiveFloat
from pkgllm.objectives.objective import Objective, TrlCounterpart

if TYPE_CHECKING:
    from torch import Tensor

    from pkgllm.objectives.scored_groups import ScoredGroups


def kl_estimate(mismatched_log_ratio: Tensor) -> Tensor:
    r"""Return KTO's estimate of KL(policy || reference), at least 0 and without gradient.

    .. math:: z = \max(0, \tfrac1m \sum_j \log\pi(y'_j|x_j) - \log\pi_0(y'_j|x_j))

    over completions :math:`y'_j` of other prompts.

    Source: Ethayarajh et al. 2024, arXiv:2402.01306, section 4.1.

    Args:
        mismatched_log_ratio: Of mismatched pairs, at least one, nats. Shape ``(pairs,)``.

    Returns:
        Nats, shape ``()``.

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
        >>> import torch
        >>> losses = kto_loss(
        ...     torch.tensor([2.0, -1.0]), torch.tensor([True, False]), kl_baseline=0.5, beta=0.1
        ... )
        >>> [round(loss, 4) for loss in losses.tolist()]
        [0.4626, 0.4626]
    """
    advantage = beta * (log_ratio - kl_baseline)
    return (desirable_weight * (1 - advantage.sigmoid())).where(
        desirable, undesirable_weight * (1 - (-advantage).sigmoid())
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Kto(Objective):
    """Kahneman-Tversky optimisation (Ethayarajh et al. 2024)."""

    name: Literal["kto"] = "kto"
    beta: PositiveFloat = 0.1
    """How strongly the policy is held to the reference."""
    desirable_weight: PositiveFloat = 1.0
    """Weight of a desirable completion; not to be set from private counts."""
    undesirable_weight: PositiveFloat = 1.0
    """Weight of an undesirable completion."""
    nll_weight: NotNegativeFloat = 0.0
    """Weight of the likelihood of the desirable completions; 0 is the paper's form."""
    kl_baseline: Literal["batch", "public"] = "batch"
    """Where the KL baseline comes from: the mean over the batch, as in the paper, or public
    prompts, made of films of the catalogue and nobody's facts, on which the server computes it
    before each round; that leaves every example's gradient its own."""

    citation = (
        "Ethayarajh, Xu, Muennighoff, Jurafsky and Kiela 2024, KTO: Model Alignment as Prospect "
        "Theoretic Optimization, ICML, arXiv:2402.01306"
    )

    def loss(self, groups: ScoredGroups, kl_baseline: float | None = None) -> Tensor:
        """See :func:`kto_loss`; the batch's baseline is :func:`kl_estimate`.

        Raises:
            FederationError: If the baseline is public and none was sent, or the other way round.
            ValueError: If the batch has no mismatched pair to estimate the baseline from.
        """
        self.check_baseline(kl_baseline)
        losses = kto_loss(
            groups.log_ratio,
            groups.desirable,
            kl_baseline=(
                kl_estimate(groups.mismatched_log_ratio) if kl_baseline is None else kl_baseline
            ),
            beta=self.beta,
            desirable_weight=self.desirable_weight,
            undesirable_weight=self.undesirable_weight,
        )
        return groups.with_likelihood(groups.mean(losses), self.nll_weight)

    @property
    def takes_baseline(self) -> bool:
        """Whether the server sends a KL baseline for each round, computed on public prompts."""
        return self.kl_baseline == "public"

    @property
    def needs_mismatched(self) -> bool:
        """Whether the baseline is estimated from completions of other prompts of the batch."""
        return not self.takes_baseline

    @property
    def couples_examples(self) -> bool:
        """Whether one group moves the baseline of all others of its batch."""
        return not self.takes_baseline

    @property
    def trl(self) -> TrlCounterpart | None:
        """KTO with the batch's baseline and without a likelihood term."""
        if self.takes_baseline or self.nll_weight:
            return None
        return TrlCounterpart(
            trainer="KTOTrainer",
            examples="completions",
            settings={
                "loss_type": "kto",
                "beta": self.beta,
                "desirable_weight": self.desirable_weight,
                "undesirable_weight": self.undesirable_weight,
            },
        )
