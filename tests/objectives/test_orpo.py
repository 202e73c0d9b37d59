import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from trl.experimental.orpo import ORPOTrainer

from pkgllm.objectives.orpo import Orpo, odds_ratio_loss
from pkgllm.objectives.scored_groups import ScoredGroups

completions = st.tuples(st.floats(-9, -0.01), st.integers(1, 8))
"""The mean log-probability of a token, and the number of tokens."""


@pytest.mark.slow
@given(st.lists(st.tuples(completions, completions), min_size=1, max_size=5), st.floats(0.01, 2))
def test_loss_and_gradient_are_those_of_trl(
    pairs: list[tuple[tuple[float, int], tuple[float, int]]], weight: float
) -> None:
    flat = [completion for pair in pairs for completion in pair]
    num_tokens = torch.tensor([count for _, count in flat])
    policy = torch.tensor([mean * count for mean, count in flat], requires_grad=True)
    groups = ScoredGroups(
        policy=policy,
        reference=torch.zeros_like(policy),
        desirable=torch.tensor([True, False] * len(pairs)),
        num_tokens=num_tokens,
        group_index=torch.arange(len(pairs)).repeat_interleave(2),
        num_groups=len(pairs),
        mismatched_log_ratio=torch.empty(0),
    )
    per_token = policy / num_tokens
    settings = SimpleNamespace(beta=weight, accelerator=SimpleNamespace(device="cpu"))
    odds_ratio: Any = ORPOTrainer.odds_ratio_loss
    theirs, *_ = odds_ratio(settings, per_token[::2], per_token[1::2])
    expected = -per_token[::2].mean() - theirs.mean()
    loss = Orpo(odds_weight=weight).loss(groups)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5, abs=1e-6)
    (gradient,) = torch.autograd.grad(loss, policy)
    (expected_gradient,) = torch.autograd.grad(expected, policy)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-4, atol=1e-6)


def test_odds_by_hand() -> None:
    # Probabilities 0.5 and 0.2 have the odds 1 and 1/4; -log sigmoid(log 4) = log(1 + 1/4).
    loss = odds_ratio_loss(torch.tensor([0.5]).log(), torch.tensor([0.2]).log())
    assert loss.item() == pytest.approx(math.log(1.25))


@pytest.mark.parametrize("certain", [(0.0, -3.0), (-3.0, 0.0), (0.0, 0.0)])
def test_a_certain_completion_leaves_loss_and_gradient_finite(certain: tuple[float, float]) -> None:
    logs = torch.tensor(certain, requires_grad=True)
    loss = odds_ratio_loss(logs[:1], logs[1:]).sum()
    (gradient,) = torch.autograd.grad(loss, logs)
    assert loss.isfinite()
    assert gradient.isfinite().all()
