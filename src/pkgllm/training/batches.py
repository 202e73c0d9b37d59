"""Which groups a client trains on in each step, and what an objective needs to know of them."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from pkgllm.objectives.objective import Objective
from pkgllm.objectives.scored_groups import ScoredGroups
from pkgllm.prompts.groups import Group
from pkgllm.randomness import stream
from pkgllm.training.local import LocalSteps
from pkgllm.training.log_probabilities import Branch


def draw_batches(
    groups: Sequence[Group], *, steps: LocalSteps, seed: int, client: str, round_num: int
) -> Iterator[list[Group]]:
    """Yield a client's batches, which go through all groups in shuffled order, again and again.

    A batch never holds a group twice, also where one pass ends and the next begins in it; a client
    with fewer groups than a batch has trains on all of them in each step.

    Args:
        groups: All of the client.
        steps: How many batches, and how large.
        seed: The run's.
        client: Has its own order.
        round_num: Has its own order.
    """
    generator = stream(seed, "local_training", client, round_num)
    size = min(steps.groups_per_step, len(groups))
    queue: list[int] = []
    for _ in range(steps.local_steps):
        if len(queue) < size:
            drawn = [int(index) for index in generator.permutation(len(groups))]
            # Groups that the last pass has not yielded come first, and no group twice.
            again = [index for index in drawn if index in queue]
            queue += [index for index in drawn if index not in queue] + again
        yield [groups[index] for index in queue[:size]]
        queue = queue[size:]


def branches_of(batch: Sequence[Group], objective: Objective) -> list[Branch]:
    """Return each group with the completions that an objective needs scored, mismatched ones last.

    Example:
        >>> from pkgllm.objectives.sft import Sft
        >>> branches_of([], Sft())
        []
    """
    return [
        (group, (*group.completions, *(group.mismatched if objective.needs_mismatched else ())))
        for group in batch
    ]


def scored_groups(
    branches: Sequence[Branch], policy: Tensor, reference: Tensor | None
) -> ScoredGroups:
    """Return what an objective takes, from the log-probabilities of all completions of a batch.

    Args:
        branches: As :func:`branches_of` returned them.
        policy: Nats, in the order of the branches. Shape ``(completions,)``.
        reference: As ``policy``, of the frozen base; None where the objective needs none.
    """
    reference = policy.detach() if reference is None else reference
    is_mismatched = torch.tensor(
        [
            index >= len(group.completions)
            for group, completions in branches
            for index in range(len(completions))
        ],
        device=policy.device,
    )
    counts = torch.tensor([len(group.completions) for group, _ in branches])
    return ScoredGroups(
        policy=policy[~is_mismatched],
        reference=reference[~is_mismatched],
        desirable=torch.tensor(
            [completion.desirable for group, _ in branches for completion in group.completions],
            device=policy.device,
        ),
        num_tokens=torch.tensor(
            [len(own.token_ids) for group, _ in branches for own in group.completions],
            dtype=torch.int64,
            device=policy.device,
        ),
        group_index=torch.repeat_interleave(torch.arange(len(branches)), counts).to(policy.device),
        num_groups=len(branches),
        mismatched_log_ratio=(policy - reference)[is_mismatched].detach(),
    )
