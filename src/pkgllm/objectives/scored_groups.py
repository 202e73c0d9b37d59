"""The log-probabilities of a batch of groups, of which every objective is a function."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredGroups:
    """The completions of a batch of groups; a log-probability is summed over tokens, in nats."""

    policy: Tensor
    """With gradient. Shape ``(completions,)``."""
    reference: Tensor
    """Of the frozen base model. Shape ``(completions,)``."""
    desirable: Tensor
    """Shape ``(completions,)``, bool."""
    num_tokens: Tensor
    """Of each completion, its end included. Shape ``(completions,)``, int64."""
    group_index: Tensor
    """The group of each completion. Shape ``(completions,)``, int64."""
    num_groups: int
    """Groups, those without completions included."""
    mismatched_log_ratio: Tensor
    """Log-ratios of mismatched pairs, without gradient; empty where not asked for."""

    @property
    def log_ratio(self) -> Tensor:
        """``log policy(y|x) - log reference(y|x)``, shape ``(completions,)``."""
        return self.policy - self.reference

    @property
    def pairs(self) -> Tensor:
        """Where the row is desirable and the column undesirable in the same group.

        Shape ``(completions, completions)``, bool.
        """
        same_group = self.group_index[:, None] == self.group_index[None, :]
        return same_group & self.desirable[:, None] & ~self.desirable[None, :]

    def mean(
        self, losses: Tensor, *, completions: Tensor | None = None, counted: Tensor | None = None
    ) -> Tensor:
        """Return the mean over groups of each group's mean; a group without losses counts 0.

        Args:
            losses: One for each example. Shape ``(examples,)``.
            completions: A completion of each example, whose group the example counts in. Shape
                ``(examples,)``, int64; when None, example ``i`` is completion ``i``.
            counted: Which examples take part; all when None. Shape ``(examples,)``, bool.

        Returns:
            Shape ``()``.

        Example:
            >>> zeros = torch.zeros(3)
            >>> groups = ScoredGroups(
            ...     policy=zeros,
            ...     reference=zeros,
            ...     desirable=zeros.bool(),
            ...     num_tokens=zeros.long(),
            ...     group_index=torch.tensor([0, 0, 1]),
            ...     num_groups=2,
            ...     mismatched_log_ratio=torch.empty(0),
            ... )
            >>> groups.mean(torch.tensor([1.0, 3.0, 10.0])).item()
            6.0
        """
        group_index = self.group_index if completions is None else self.group_index[completions]
        weights = torch.ones_like(losses)
        if counted is not None:
            losses, weights = losses.where(counted, 0), weights.where(counted, 0)
        sums = losses.new_zeros(self.num_groups).index_add(0, group_index, losses)
        counts = losses.new_zeros(self.num_groups).index_add(0, group_index, weights)
        return (sums / counts.clamp(min=1)).mean()

    def negative_log_likelihood(self) -> Tensor:
        """Return that of the desirable completions, mean over groups. Shape ``()``."""
        return self.mean(-self.policy, counted=self.desirable)

    def with_likelihood(self, loss: Tensor, weight: float) -> Tensor:
        """Return ``loss`` plus ``weight`` times the negative log-likelihood. Shape ``()``."""
        return loss if weight == 0 else loss + weight * self.negative_log_likelihood()
