from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PeftModel

from pkgllm.lm.adapter import attach_adapter
from pkgllm.lm.base_model import load_base_model
from pkgllm.prompts.packing import Branches, pack
from pkgllm.training.log_probabilities import completion_log_probabilities

tokens = st.lists(st.integers(3, 255), min_size=1, max_size=7).map(tuple)
batches = st.lists(
    st.tuples(tokens, st.lists(tokens, min_size=1, max_size=4)), min_size=1, max_size=3
)


@pytest.fixture(scope="module")
def policy(tiny_base_folder: Path) -> PeftModel:
    base = load_base_model(str(tiny_base_folder), device="cpu")
    policy = attach_adapter(
        base.model, lora_rank=2, lora_alpha=2, target_modules="all-linear", seed=0
    )
    generator = torch.Generator().manual_seed(0)
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.2, generator=generator)
    return policy


def one_at_a_time(policy: PeftModel, batch: Sequence[Branches]) -> list[float]:
    """The definition: every prompt with every completion in a forward pass of its own."""
    scores = []
    for prompt, completions in batch:
        for completion in completions:
            logits = policy(torch.tensor([[*prompt, *completion]])).logits[0]
            log_probs = logits.double().log_softmax(-1)
            positions = range(len(prompt) - 1, len(prompt) + len(completion) - 1)
            scores.append(
                sum(log_probs[p, t].item() for p, t in zip(positions, completion, strict=True))
            )
    return scores


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(batch=batches)
@torch.no_grad()
def test_a_packed_completion_scores_as_it_does_alone(
    policy: PeftModel, batch: list[Branches]
) -> None:
    packed = completion_log_probabilities(policy, pack(batch))
    assert packed.tolist() == pytest.approx(one_at_a_time(policy, batch), abs=1e-4)


def test_layout_of_a_small_group_by_hand() -> None:
    packed = pack([((5, 6), [(7, 8, 2), (9, 2)])])
    # Inputs: the prompt, then each completion without its last token.
    assert packed.input_ids.tolist() == [[5, 6, 7, 8, 9]]
    assert packed.position_ids.tolist() == [[0, 1, 2, 3, 2]]
    assert packed.attention_mask[0, 0].int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 0, 0, 1],
    ]
    # The prompt's last token predicts the first token of both completions.
    assert packed.source_rows[packed.target_rows].tolist() == [1, 2, 3, 1, 4]
    assert packed.target_ids.tolist() == [7, 8, 2, 9, 2]
    assert packed.target_completions.tolist() == [0, 0, 0, 1, 1]


@pytest.mark.parametrize("batch", [[], [((), [(1,)])], [((1,), [()])]])
def test_empty_parts_are_refused(batch: list[Branches]) -> None:
    with pytest.raises(ValueError, match="at least one token"):
        pack(batch)
