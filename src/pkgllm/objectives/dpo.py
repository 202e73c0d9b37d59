"""Direct preference optimisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pkgllm.bounds import NotNegativeFloat, PositiveFloat
from pkgllm.objectives.objective import Objective, TrlCounterpart

if TYPE_CHECKING:
    from torch import Tensor

    from pkgllm.objectives.scored_groups import ScoredGroups


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
    from torch.nn.functional import logsigmoid

    return -logsigmoid(beta * (desirable_log_ratio - undesirable_log_ratio))


@dataclass(frozen=True, slots=True, kw_only=True)
class Dpo(Objective):
    """Direct preference optimisation (Rafailov et al. 2023)."""

    name: Literal["dpo"] = "dpo"
    beta: PositiveFloat = 0.1
    """How strongly the policy is held to the reference."""
    pairs: Literal["all", "matched"] = "all"
    """Every desirable completion of a group with every undesirable one, or the first with the
    first, the second with the second; what is then over is left out."""
    nll_weight: NotNegativeFloat = 0.0
    """Weight of the likelihood of the desirable completions; 0 is the paper's form."""

    citation = (
        "Rafailov, Sharma, Mitchell, Ermon, Manning and Finn 2023, Direct Preference Optimization: "
        "Your Language Model is Secretly a Reward Model, NeurIPS, arXiv:2305.18290"
    )
    needs_pairs = True
    couples_examples = False

    def loss(self, groups: ScoredGroups, kl_baseline: float | None = None) -> Tensor:
        """See :func:`dpo_loss`; the likelihood term is also that of unpaired completions."""
        pairs = groups.pairs
        if self.pairs == "matched":
            # Along a column a pair's number is that of its winner, along a row that of its loser.
            pairs &= pairs.cumsum(0) == pairs.cumsum(1)
        winners, losers = pairs.nonzero(as_tuple=True)
        losses = dpo_loss(groups.log_ratio[winners], groups.log_ratio[losers], beta=self.beta)
        return groups.with_likelihood(groups.mean(losses, completions=winners), self.nll_weight)

    @property
    def trl(self) -> TrlCounterpart | None:
        """DPO, where there is no likelihood term."""
        if self.nll_weight:
            return None
        return TrlCounterpart(
            trainer="DPOTrainer",
            examples="pairs" if self.pairs == "all" else "matched_pairs",
            settings={"beta": self.beta},
        )
