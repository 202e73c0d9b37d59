"""Log-probabilities of completions, for a whole batch of groups in one pass."""

from collections.abc import Sequence

import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel

from pkgllm.prompts.groups import Completion, Group
from pkgllm.prompts.packing import PackedGroups, pack

Branch = tuple[Group, Sequence[Completion]]
"""A group's prompt with the completions that are scored after it."""


def completion_log_probabilities(policy: PeftModel, packed: PackedGroups) -> Tensor:
    """Return ``log policy(completion | prompt)``, summed over tokens, in nats.

    Only the rows that predict a completion's token reach the LM head, and the log-softmax is taken
    in float32 whatever the type of the base model.

    Args:
        policy: The base model with its adapter.
        packed: On the policy's device.

    Returns:
        Shape ``(packed.num_completions,)``, float32.
    """
    model = policy.get_base_model()
    assert isinstance(model, PreTrainedModel)
    hidden = model.base_model(
        input_ids=packed.input_ids,
        position_ids=packed.position_ids,
        attention_mask=packed.attention_mask,
        use_cache=False,
    ).last_hidden_state
    rows = hidden.flatten(0, 1)[packed.source_rows]
    # transformers leaves this method untyped.
    head = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    log_probabilities: Tensor = head(rows).float().log_softmax(-1)
    of_targets = log_probabilities[packed.target_rows, packed.target_ids]
    return of_targets.new_zeros(packed.num_completions).index_add(
        0, packed.target_completions, of_targets
    )


def score_alone(policy: PeftModel, branches: Sequence[Branch]) -> Tensor:
    """Return the log-probabilities of all completions, each group in a pass of its own.

    So a group's values do not depend on what it is scored with, and are the same to the bit when a
    CPU computes them again.

    Args:
        policy: The base model with its adapter.
        branches: At least one.

    Returns:
        Nats, in order, without gradient. Shape ``(completions,)``, float32, on the CPU.
    """
    with torch.no_grad():
        return torch.cat(
            [
                completion_log_probabilities(policy, pack_branches([one], policy.device)).cpu()
                for one in branches
            ]
        )


def pack_branches(branches: Sequence[Branch], device: torch.device) -> PackedGroups:
    """Pack prompts with their completions, and put them on a device."""
    return pack(
        [
            (group.prompt.token_ids, [completion.token_ids for completion in completions])
            for group, completions in branches
        ]
    ).to(device)
