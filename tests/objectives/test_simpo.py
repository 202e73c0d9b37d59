from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from trl.experimental.cpo import CPOTrainer

from pkgllm.objectives.scored_groups import ScoredGroups
from pkgllm.objectives.simpo import Simpo

completions = st.tuples(st.floats(-40, 0), st.integers(1, 8))
"""The log-probability, and the number of tokens."""


@given(
    pairs=st.lists(st.tuples(completions, completions), min_size=1, max_size=5),
    beta=st.floats(0.1, 4),
    margin=st.floats(0, 3),
)
def test_loss_and_gradient_are_those_of_trl(
    pairs: list[tuple[tuple[float, int], tuple[float, int]]], beta: float, margin: float
) -> None:
    flat = [completion for pair in pairs for completion in pair]
    num_tokens = torch.tensor([count for _, count in flat])
    policy = torch.tensor([value for value, _ in flat], dtype=torch.float64, requires_grad=True)
    groups = ScoredGroups(
        policy=policy,
        reference=torch.zeros_like(policy),
        desirable=torch.tensor([True, False] * len(pairs)),
        num_tokens=num_tokens,
        group_index=torch.arange(len(pairs)).repeat_interleave(2),
        num_groups=len(pairs),
        mismatched_log_ratio=torch.empty(0),
    )
    settings = SimpleNamespace(
        loss_type="simpo",
        alpha=0.0,
        beta=beta,
        simpo_gamma=margin,
        label_smoothing=0.0,
        accelerator=SimpleNamespace(device="cpu"),
    )
    per_token = policy / num_tokens
    cpo_loss: Any = CPOTrainer.cpo_loss
    theirs, *_ = cpo_loss(settings, per_token[::2], per_token[1::2])
    loss = Simpo(beta=beta, margin=margin).loss(groups)
    assert loss.item() == pytest.approx(theirs.mean().item(), rel=1e-9)
    (gradient,) = torch.autograd.grad(loss, policy)
    (expected_gradient,) = torch.autograd.grad(theirs.mean(), policy)
    torch.testing.assert_close(gradient, expected_gradient)
