"""Local training, one client after the other: the executable reference of every faster engine."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from peft import PeftModel
from torch import Tensor

from pkgllm.errors import FederationError
from pkgllm.lm.adapter import AdapterState, adapter_state, load_adapter_state
from pkgllm.preferences.groups import Group
from pkgllm.randomness import stream
from pkgllm.training.local import TrainedClient
from pkgllm.training.log_probabilities import (
    Branch,
    completion_log_probabilities,
    pack_branches,
)
from pkgllm.training.objectives import Objective, ScoredGroups
from pkgllm.training.reference import ReferenceCache


@dataclass(frozen=True, slots=True)
class LocalSteps:
    """How one client trains in one round."""

    optimizer: Literal["adamw", "sgd"] = "adamw"
    local_steps: int = 4
    """Optimiser steps in a round."""
    groups_per_step: int = 4
    """Groups in a step; all of them where a client has fewer."""
    max_grad_norm: float = 1.0
    """Longest gradient of a step."""
    weight_decay: float = 0.0


class SequentialTrainer:
    """Trains clients one at a time on one policy; each starts from the adapter it receives.

    Args:
        policy: The base model with its adapter.
        groups: Each client's groups, at least one.
        objective: What is minimised.
        reference: Cached log-probabilities of the frozen base.
        steps: How a client trains.
        seed: Of the order in which a client's groups are drawn.
    """

    def __init__(
        self,
        policy: PeftModel,
        groups: Mapping[str, Sequence[Group]],
        objective: Objective,
        reference: ReferenceCache,
        *,
        steps: LocalSteps,
        seed: int,
    ) -> None:
        self._policy = policy
        self._groups = groups
        self._objective = objective
        self._reference = reference
        self._steps = steps
        self._seed = seed

    def __call__(
        self, client: str, adapter: AdapterState, *, round_num: int, learning_rate: float
    ) -> TrainedClient:
        """Return the client's adapter after the local steps of one round.

        Raises:
            FederationError: If the loss is no longer finite.
        """
        load_adapter_state(self._policy, adapter)
        parameters = [p for p in self._policy.parameters() if p.requires_grad]
        optimizer = self._optimizer(parameters, learning_rate)
        losses = []
        for batch in draw_batches(
            self._groups[client],
            num_batches=self._steps.local_steps,
            batch_size=self._steps.groups_per_step,
            generator_names=(client, round_num),
            seed=self._seed,
        ):
            scored = score(self._policy, batch, self._objective, self._reference)
            loss = self._objective.loss(scored)
            if not math.isfinite(loss.item()):
                raise FederationError(
                    f"client {client!r}, round {round_num}: the loss must be finite, got "
                    f"{loss.item()}; lower training.learning_rate"
                )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(parameters, self._steps.max_grad_norm)
            optimizer.step()
            losses.append(loss.item())
        return TrainedClient(
            adapter_state(self._policy), len(self._groups[client]), sum(losses) / len(losses)
        )

    def _optimizer(
        self, parameters: Sequence[Tensor], learning_rate: float
    ) -> torch.optim.Optimizer:
        if self._steps.optimizer == "sgd":
            return torch.optim.SGD(
                parameters, lr=learning_rate, weight_decay=self._steps.weight_decay
            )
        return torch.optim.AdamW(
            parameters, lr=learning_rate, weight_decay=self._steps.weight_decay
        )


def draw_batches(
    groups: Sequence[Group],
    *,
    num_batches: int,
    batch_size: int,
    seed: int,
    generator_names: tuple[str | int, ...],
) -> Iterator[list[Group]]:
    """Yield batches that go through all groups in shuffled order, again and again.

    A batch never holds a group twice, also where one pass ends and the next begins in it; a client
    with fewer groups than ``batch_size`` trains on all of them in each step.
    """
    generator = stream(seed, "local_training", *generator_names)
    size = min(batch_size, len(groups))
    queue: list[int] = []
    for _ in range(num_batches):
        if len(queue) < size:
            drawn = [int(index) for index in generator.permutation(len(groups))]
            # What the last pass still owes opens this batch, and must not stand in it twice.
            again = [index for index in drawn if index in queue]
            queue += [index for index in drawn if index not in queue] + again
        yield [groups[index] for index in queue[:size]]
        queue = queue[size:]


def score(
    policy: PeftModel, batch: Sequence[Group], objective: Objective, reference: ReferenceCache
) -> ScoredGroups:
    """Return the log-probabilities that an objective needs of a batch of groups."""
    device = policy.device
    branches: list[Branch] = [
        (group, (*group.completions, *(group.mismatched if objective.needs_mismatched else ())))
        for group in batch
    ]
    is_mismatched = torch.tensor(
        [
            index >= len(group.completions)
            for group, completions in branches
            for index in range(len(completions))
        ],
        device=device,
    )
    scored = completion_log_probabilities(policy, pack_branches(branches, device))
    reference_scored = (
        reference.log_probabilities(branches) if objective.needs_reference else scored.detach()
    )
    counts = torch.tensor([len(group.completions) for group in batch])
    return ScoredGroups(
        policy=scored[~is_mismatched],
        reference=reference_scored[~is_mismatched],
        desirable=torch.tensor(
            [completion.desirable for group in batch for completion in group.completions],
            device=device,
        ),
        group_index=torch.repeat_interleave(torch.arange(len(batch)), counts).to(device),
        num_groups=len(batch),
        mismatched_log_ratio=(scored - reference_scored)[is_mismatched].detach(),
    )
