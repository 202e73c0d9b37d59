"""KTO's KL baseline of a whole round, from prompts that hold nobody's facts."""

from collections.abc import Sequence
from functools import cached_property

from peft import PeftModel
from torch import Tensor

from pkgllm.errors import FederationError
from pkgllm.lm.adapter import AdapterState, carrying, without_adapter
from pkgllm.objectives.kto import kl_estimate
from pkgllm.prompts.groups import Group
from pkgllm.training.log_probabilities import Branch, score_alone


class PublicBaseline:
    r"""Computes the KL baseline of an adapter on public prompts.

    .. math:: z = \max(0, \tfrac1m \sum_j \log\pi(y'_j|x_j) - \log\pi_0(y'_j|x_j))

    is KTO's estimate (:func:`~pkgllm.objectives.kto.kl_estimate`) with two differences: prompts
    :math:`x_j` and completions :math:`y'_j` are public in place of a batch's, and the policy
    :math:`\pi` is the one that a round starts from in place of each step's.

    It is a function of the adapter alone. So no example moves it within a round; with a privacy
    unit it is post-processing of an adapter that is private already; and a run that goes on
    computes it again, on a CPU to the bit.

    Args:
        policy: The base model with an adapter, which is put back after each call.
        groups: Public, with mismatched completions.

    Raises:
        ValueError: If no group has a mismatched completion.
    """

    def __init__(self, policy: PeftModel, groups: Sequence[Group]) -> None:
        self._policy = policy
        self._branches: list[Branch] = [(group, group.mismatched) for group in groups]
        if not any(completions for _, completions in self._branches):
            raise ValueError("groups must have at least one mismatched completion, got none")

    def __call__(self, adapter: AdapterState) -> float:
        """Return the baseline of an adapter, nats, at least 0.

        Raises:
            FederationError: If a log-probability is not finite.
        """
        with carrying(self._policy, adapter):
            log_ratio = score_alone(self._policy, self._branches) - self._reference
        if not log_ratio.isfinite().all():
            raise FederationError(
                "the log-probabilities of public prompts, for the KL baseline, must be finite, got "
                "some that are not; lower training.learning_rate"
            )
        return kl_estimate(log_ratio).item()

    @cached_property
    def _reference(self) -> Tensor:
        """Log-probabilities of the frozen base model, which are the same in every round."""
        with without_adapter(self._policy):
            return score_alone(self._policy, self._branches)
