"""What every objective is: settings, a loss of a batch of groups, and what the loss depends on."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from pkgllm.errors import FederationError
from pkgllm.registry import Choice

if TYPE_CHECKING:
    from torch import Tensor

    from pkgllm.objectives.scored_groups import ScoredGroups


@dataclass(frozen=True, slots=True, kw_only=True)
class TrlCounterpart:
    """The trainer of TRL's that minimises the same loss."""

    trainer: str
    """Its name in ``trl``, such as ``KTOTrainer``, whose configuration is ``KTOConfig``."""
    examples: Literal["completions", "pairs", "matched_pairs", "desirable"]
    """What it takes as an example: a completion with its label, a desirable and an undesirable
    completion, or a desirable completion; pairs as ``objective.pairs`` of DPO says."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Of its configuration."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective(Choice, ABC):
    """What local training minimises, as a function of log-probabilities alone.

    A batch's loss is the mean over its groups of the mean over each group's examples, so a group
    counts the same however many completions it has. An example is a completion; for DPO a pair, for
    S-DPO a desirable completion with all undesirable ones.

    The properties say what the engines must compute and which rules apply. Where a subclass says
    nothing, its loss is taken to need the reference and to couple examples: the slower and the more
    private reading.
    """

    @abstractmethod
    def loss(self, groups: ScoredGroups, kl_baseline: float | None = None) -> Tensor:
        """Return the loss of a batch.

        Args:
            groups: The batch; the loss is differentiable by ``groups.policy``.
            kl_baseline: The round's, nats, where :attr:`takes_baseline`; a constant in the loss.

        Returns:
            Mean over groups, shape ``()``.
        """

    @property
    def needs_reference(self) -> bool:
        """Whether the loss compares with the frozen base model."""
        return True

    @property
    def needs_mismatched(self) -> bool:
        """Whether the loss reads log-ratios of completions of other prompts."""
        return False

    @property
    def takes_baseline(self) -> bool:
        """Whether the server sends a KL baseline for each round, computed on public prompts."""
        return False

    @property
    def needs_pairs(self) -> bool:
        """Whether the loss compares desirable with undesirable completions of one group."""
        return False

    @property
    def needs_desirable(self) -> bool:
        """Whether undesirable completions alone teach nothing."""
        return self.needs_pairs

    def learns_from(self, labels: Collection[bool]) -> bool:
        """Whether a group teaches anything whose completions are desirable (True) or not."""
        if self.needs_pairs:
            return True in labels and False in labels
        return True in labels if self.needs_desirable else bool(labels)

    @property
    def couples_examples(self) -> bool:
        """Whether the loss of one group depends on the others of its batch.

        Clipping the gradient of each group then does not bound what one group changes.
        """
        return True

    @property
    def trl(self) -> TrlCounterpart | None:
        """The trainer of TRL's that minimises the same loss, or None."""
        return None

    def check_baseline(self, kl_baseline: float | None) -> None:
        """Check the KL baseline of a round against what the loss takes.

        Raises:
            FederationError: If a baseline is needed and missing, or sent and not taken: server and
                client then train for different objectives.
            ValueError: If the baseline is not finite or below 0.
        """
        if kl_baseline is None:
            if self.takes_baseline:
                raise FederationError(
                    "the objective takes the KL baseline of each round from the server, which sent "
                    "none; give both sides the same objective"
                )
            return
        if not self.takes_baseline:
            raise FederationError(
                f"the server sent the KL baseline {kl_baseline:g}, and the objective takes none; "
                "give both sides the same objective"
            )
        if not (math.isfinite(kl_baseline) and kl_baseline >= 0):
            raise ValueError(f"kl_baseline must be finite and at least 0, got {kl_baseline}")
