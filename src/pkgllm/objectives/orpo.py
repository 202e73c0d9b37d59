"""Odds ratio preference optimisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pkgllm.bounds import PositiveFloat
from pkgllm.objectives.objective import Objective

if TYPE_CHECKING:
    from torch import Tensor

    from pkgllm.objectives.scored_groups import ScoredGroups


def odds_ratio_loss(desirable: Tensor, undesirable: Tensor) -> Tensor:
    r"""Return the odds ratio loss of pairs.

    With the length-normalised probability :math:`p = \pi(y|x)^{1/|y|}`,

    .. math:: \ell = -\log \sigma\Bigl(\log \frac{p_D / (1 - p_D)}{p_U / (1 - p_U)}\Bigr)

    Source: Hong et al. 2024, arXiv:2403.07691, eq. 7.

    Args:
        desirable: Mean log-probability of a token, nats. Shape ``(pairs,)``.
        undesirable: As ``desirable``.

    Returns:
        Shape ``(pairs,)``.
    """
    from torch.nn.functional import logsigmoid

    return -logsigmoid(_log_odds(desirable) - _log_odds(undesirable))


def _log_odds(log_probability: Tensor) -> Tensor:
    from torch import finfo

    # Of a probability that rounds to 1 the odds would be infinite, and their gradient not a number.
    below_zero = log_probability.clamp(max=-finfo(log_probability.dtype).eps)
    return log_probability - (-below_zero.expm1()).log()


@dataclass(frozen=True, slots=True, kw_only=True)
class Orpo(Objective):
    """Odds ratio preference optimisation, without a reference (Hong et al. 2024)."""

    name: Literal["orpo"] = "orpo"
    odds_weight: PositiveFloat = 0.1
    """Weight of the odds ratio beside the likelihood of a token: the paper's lambda, TRL's beta."""

    citation = (
        "Hong, Lee and Thorne 2024, ORPO: Monolithic Preference Optimization without Reference "
        "Model, EMNLP, arXiv:2403.07691"
    )
    needs_reference = False
    needs_pairs = True
    couples_examples = False

    def loss(self, groups: ScoredGroups, kl_baseline: float | None = None) -> Tensor:
        r"""Return :math:`-\tfrac{1}{|y_D|} \log\pi(y_D|x)` plus the weighted odds ratio loss.

        The likelihood, of the desirable completions, is that of a token of the completion; TRL
        counts the prompt's tokens too. See :func:`odds_ratio_loss`.
        """
        per_token = groups.policy / groups.num_tokens
        winners, losers = groups.pairs.nonzero(as_tuple=True)
        odds = odds_ratio_loss(per_token[winners], per_token[losers])
        likelihood = groups.mean(-per_token, counted=groups.desirable)
        return likelihood + self.odds_weight * groups.mean(odds, completions=winners)
