"""Simple preference optimisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pkgllm.bounds import NotNegativeFloat, PositiveFloat
from pkgllm.objectives.objective import Objective

if TYPE_CHECKING:
    from torch import Tensor

    from pkgllm.objectives.scored_groups import ScoredGroups


@dataclass(frozen=True, slots=True, kw_only=True)
class Simpo(Objective):
    """Simple preference optimisation, without a reference (Meng et al. 2024)."""

    name: Literal["simpo"] = "simpo"
    beta: PositiveFloat = 2.0
    """Scale of a completion's reward, the mean log-probability of its tokens."""
    margin: NotNegativeFloat = 1.0
    """By how much the desirable reward should exceed the other: the paper's gamma."""

    citation = (
        "Meng, Xia and Chen 2024, SimPO: Simple Preference Optimization with a Reference-Free "
        "Reward, NeurIPS, arXiv:2405.14734"
    )
    needs_reference = False
    needs_pairs = True
    couples_examples = False

    def loss(self, groups: ScoredGroups, kl_baseline: float | None = None) -> Tensor:
        r"""Return the mean loss of all pairs of each group.

        .. math::
            \ell = -\log \sigma\Bigl(\tfrac{\beta}{|y_D|} \log\pi(y_D|x)
                - \tfrac{\beta}{|y_U|} \log\pi(y_U|x) - \gamma\Bigr)

        Source: Meng et al. 2024, arXiv:2405.14734, eq. 6.
        """
        from torch.nn.functional import logsigmoid

        reward = self.beta * groups.policy / groups.num_tokens
        winners, losers = groups.pairs.nonzero(as_tuple=True)
        losses = -logsigmoid(reward[winners] - reward[losers] - self.margin)
        return groups.mean(losses, completions=winners)
