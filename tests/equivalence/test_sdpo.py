"""S-DPO equals its formula, written here once more: symbol by symbol, in numpy, without masks."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pkgllm.objectives.scored_groups import ScoredGroups
from pkgllm.objectives.sdpo import Sdpo

# Wide enough to tell the completions apart, narrow enough for the formula without any care.
nats = st.floats(-8, 8)


@dataclass(frozen=True, slots=True)
class Scored:
    group: int
    desirable: bool
    policy: float
    reference: float


def by_formula(batch: list[Scored], num_groups: int, beta: float) -> tuple[float, np.ndarray]:
    """-log sigma(-log sum_u exp(beta r_u - beta r_d)), and its derivative by each log pi."""
    total, gradient = 0.0, np.zeros(len(batch))
    for group in range(num_groups):
        winners = [i for i, s in enumerate(batch) if s.group == group and s.desirable]
        losers = [i for i, s in enumerate(batch) if s.group == group and not s.desirable]
        if not winners or not losers:
            continue
        share = 1 / len(winners) / num_groups
        for d in winners:
            reward = {i: beta * (batch[i].policy - batch[i].reference) for i in (d, *losers)}
            terms = {u: np.exp(reward[u] - reward[d]) for u in losers}
            summed = sum(terms.values())
            probability = 1 / (1 + np.exp(np.log(summed)))
            total -= share * np.log(probability)
            gradient[d] -= share * beta * (1 - probability)
            for u in losers:
                gradient[u] += share * beta * (1 - probability) * terms[u] / summed
    return total, gradient


@given(
    num_groups=st.integers(1, 4),
    completions=st.lists(
        st.tuples(st.integers(0, 3), st.booleans(), nats, nats), min_size=1, max_size=16
    ),
    beta=st.floats(0.02, 1.5),
)
def test_loss_and_gradient_are_those_of_the_formula(
    num_groups: int, completions: list[tuple[int, bool, float, float]], beta: float
) -> None:
    batch = [Scored(group % num_groups, d, p, r) for group, d, p, r in completions]
    policy = torch.tensor([s.policy for s in batch], dtype=torch.float64, requires_grad=True)
    loss = Sdpo(beta=beta, nll_weight=0).loss(
        ScoredGroups(
            policy=policy,
            reference=torch.tensor([s.reference for s in batch], dtype=torch.float64),
            desirable=torch.tensor([s.desirable for s in batch]),
            num_tokens=torch.ones(len(batch), dtype=torch.int64),
            group_index=torch.tensor([s.group for s in batch]),
            num_groups=num_groups,
            mismatched_log_ratio=torch.empty(0),
        )
    )
    (gradient,) = torch.autograd.grad(loss, policy)
    expected, expected_gradient = by_formula(batch, num_groups, beta)
    # The formula's own rounding is what the tolerance is for: it takes 1 - p of a p close to 1.
    assert loss.item() == pytest.approx(expected, rel=1e-9, abs=1e-12)
    np.testing.assert_allclose(gradient.numpy(), expected_gradient, rtol=1e-9, atol=1e-12)
