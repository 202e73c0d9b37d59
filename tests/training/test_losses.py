import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pkgllm.training.losses import dpo_loss, kl_baseline, kto_loss, sft_loss

nats = st.floats(-30, 30)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_kto_by_hand() -> None:
    # Desirable: 2 * (1 - sigmoid(.1 * (3 - 1))); undesirable: 3 * (1 - sigmoid(.1 * (1 - 3))).
    losses = kto_loss(
        torch.tensor([3.0, 3.0]),
        torch.tensor([True, False]),
        kl_baseline=torch.tensor(1.0),
        beta=0.1,
        desirable_weight=2.0,
        undesirable_weight=3.0,
    )
    assert losses.tolist() == pytest.approx([2 * (1 - sigmoid(0.2)), 3 * (1 - sigmoid(-0.2))])


@given(ratio=nats, step=st.floats(0, 10), baseline=st.floats(0, 10), beta=st.floats(0.01, 2))
def test_kto_falls_for_desirable_and_rises_for_undesirable(
    ratio: float, step: float, baseline: float, beta: float
) -> None:
    ratios = torch.tensor([ratio, ratio + step], dtype=torch.float64)
    for desirable, sign in ((True, 1), (False, -1)):
        lower, higher = kto_loss(
            ratios, torch.tensor([desirable] * 2), kl_baseline=baseline, beta=beta
        ).tolist()
        assert sign * (lower - higher) >= 0
        assert 0 <= lower <= 1


def test_kl_baseline_is_a_constant_and_never_negative() -> None:
    ratios = torch.tensor([1.0, 2.0], requires_grad=True)
    assert kl_baseline(ratios).item() == 1.5
    assert not kl_baseline(ratios).requires_grad
    assert kl_baseline(torch.tensor([-4.0, 1.0])).item() == 0
    with pytest.raises(ValueError, match="at least one mismatched pair"):
        kl_baseline(torch.empty(0))


@given(winner=nats, loser=nats, beta=st.floats(0.01, 2))
def test_dpo_by_its_formula(winner: float, loser: float, beta: float) -> None:
    loss = dpo_loss(
        torch.tensor([winner], dtype=torch.float64),
        torch.tensor([loser], dtype=torch.float64),
        beta=beta,
    )
    assert loss.item() == pytest.approx(math.log1p(math.exp(-beta * (winner - loser))), rel=1e-6)


def test_sft_is_the_negative_log_likelihood() -> None:
    assert sft_loss(torch.tensor([-1.5, -0.25])).tolist() == [1.5, 0.25]
