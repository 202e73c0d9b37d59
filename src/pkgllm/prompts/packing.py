"""Pack groups so that each prompt is computed once.

A group becomes one row: its prompt, then every completion as a branch. Position ids restart after
the prompt for each branch, and the attention mask lets a branch see the prompt and itself only, so
every branch gets the log-probabilities it would get alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Branches = tuple[tuple[int, ...], Sequence[tuple[int, ...]]]
"""A prompt's token ids, and the token ids of each of its completions."""


@dataclass(frozen=True, slots=True)
class PackedGroups:
    """Groups as tensors, one row each, padded to the longest."""

    input_ids: Tensor
    """Shape ``(groups, tokens)``, int64."""
    position_ids: Tensor
    """Shape ``(groups, tokens)``, int64."""
    attention_mask: Tensor
    """True where a token may look. Shape ``(groups, 1, tokens, tokens)``, bool."""
    source_rows: Tensor
    """Flat token positions whose output predicts something. Shape ``(rows,)``, int64."""
    target_rows: Tensor
    """For each predicted token, the index into ``source_rows``. Shape ``(targets,)``."""
    target_ids: Tensor
    """The predicted tokens. Shape ``(targets,)``."""
    target_completions: Tensor
    """The completion each belongs to, counted over all groups. Shape ``(targets,)``."""
    num_completions: int

    def to(self, device: torch.device) -> "PackedGroups":
        """Return the same groups on a device."""
        return PackedGroups(
            self.input_ids.to(device),
            self.position_ids.to(device),
            self.attention_mask.to(device),
            self.source_rows.to(device),
            self.target_rows.to(device),
            self.target_ids.to(device),
            self.target_completions.to(device),
            self.num_completions,
        )


def pack(groups: Sequence[Branches]) -> PackedGroups:
    """Pack prompts with their completions.

    The last token of a completion is only ever predicted, so it is not an input.

    Args:
        groups: At least one; prompts and completions hold at least one token.

    Raises:
        ValueError: If there is no group, or a prompt or a completion is empty.
    """
    if not groups or any(not prompt or not all(branches) for prompt, branches in groups):
        raise ValueError("every group needs a prompt and completions of at least one token")
    lengths = [len(prompt) + sum(len(b) - 1 for b in branches) for prompt, branches in groups]
    width = max(lengths)
    input_ids = torch.zeros(len(groups), width, dtype=torch.int64)
    position_ids = torch.zeros(len(groups), width, dtype=torch.int64)
    # A padding token looks at itself, since a row of the mask with no True has no softmax.
    mask = torch.eye(width, dtype=torch.bool).repeat(len(groups), 1, 1)
    source_rows: list[int] = []
    target_rows: list[int] = []
    target_ids: list[int] = []
    target_completions: list[int] = []
    completion = 0
    for row, (prompt, branches) in enumerate(groups):
        end = len(prompt)
        input_ids[row, :end] = torch.tensor(prompt)
        position_ids[row, :end] = torch.arange(end)
        mask[row, :end, :end] = torch.ones(end, end, dtype=torch.bool).tril()
        prompt_source = len(source_rows)
        source_rows.append(row * width + end - 1)
        cursor = end
        for branch in branches:
            inputs = len(branch) - 1
            stop = cursor + inputs
            target_rows += [prompt_source, *range(len(source_rows), len(source_rows) + inputs)]
            source_rows += range(row * width + cursor, row * width + stop)
            target_ids += branch
            target_completions += [completion] * len(branch)
            if inputs:
                input_ids[row, cursor:stop] = torch.tensor(branch[:-1])
                position_ids[row, cursor:stop] = torch.arange(end, end + inputs)
                mask[row, cursor:stop, :end] = True
                mask[row, cursor:stop, cursor:stop] = torch.ones(
                    inputs, inputs, dtype=torch.bool
                ).tril()
            cursor = stop
            completion += 1
    return PackedGroups(
        input_ids,
        position_ids,
        mask[:, None],
        torch.tensor(source_rows),
        torch.tensor(target_rows),
        torch.tensor(target_ids),
        torch.tensor(target_completions),
        completion,
    )
