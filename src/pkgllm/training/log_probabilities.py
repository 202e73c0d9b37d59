"""Log-probabilities of completions, for a whole batch of groups in one pass."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel

from pkgllm.lm.adapter import without_adapter
from pkgllm.prompts.groups import Completion, Group
from pkgllm.prompts.packing import PackedGroups, pack

Branch = tuple[Group, Sequence[Completion]]
"""A group's prompt with the completions that are scored after it."""

_AT_ONCE = 8


def completion_log_probabilities(policy: PeftModel, packed: PackedGroups) -> Tensor:
    """Return ``log policy(completion | prompt)``, summed over tokens, in nats.

    Only the rows that predict a completion's token reach the LM head, and the log-softmax is taken
    in float32 whatever the type of the base model.

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


def title_gains(policy: PeftModel, groups: Sequence[Group]) -> NDArray[np.float64]:
    """Return by how much the adapter raised the log-probability of each group's liked title.

    The base model's log-probability is subtracted, so that a title does not score for being easy:
    a reference attack that needs no second training.

    Returns:
        In nats, shape ``(groups,)``.
    """
    device = next(policy.parameters()).device
    gains = []
    for start in range(0, len(groups), _AT_ONCE):
        branches = [(group, group.completions[:1]) for group in groups[start : start + _AT_ONCE]]
        packed = pack_branches(branches, device)
        with torch.inference_mode():
            trained = completion_log_probabilities(policy, packed)
            with without_adapter(policy):
                untrained = completion_log_probabilities(policy, packed)
        gains.append((trained - untrained).double().cpu())
    return torch.cat(gains).numpy()
