import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pkgllm.objectives.dpo import dpo_loss
from pkgllm.objectives.kto import kl_estimate, kto_loss
from pkgllm.objectives.sdpo import sdpo_loss

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
    assert kl_estimate(ratios).item() == 1.5
    assert not kl_estimate(ratios).requires_grad
    assert kl_estimate(torch.tensor([-4.0, 1.0])).item() == 0
    with pytest.raises(ValueError, match="at least one mismatched pair"):
        kl_estimate(torch.empty(0))


@given(winner=nats, loser=nats, beta=st.floats(0.01, 2))
def test_dpo_by_its_formula(winner: float, loser: float, beta: float) -> None:
    loss = dpo_loss(
        torch.tensor([winner], dtype=torch.float64),
        torch.tensor([loser], dtype=torch.float64),
        beta=beta,
    )
    assert loss.item() == pytest.approx(math.log1p(math.exp(-beta * (winner - loser))), rel=1e-6)


def test_sdpo_by_hand() -> None:
    # log(1 + e^(.5 (1 - 2)) + e^(.5 (3 - 2))), and the same without the second completion.
    losses = sdpo_loss(
        torch.tensor([2.0, 2.0]),
        torch.tensor([1.0, 3.0]),
        torch.tensor([[True, True], [True, False]]),
        beta=0.5,
    )
    expected = [math.log(1 + math.exp(-0.5) + math.exp(0.5)), math.log(1 + math.exp(-0.5))]
    assert losses.tolist() == pytest.approx(expected)


@given(
    ratios=st.lists(st.tuples(nats, nats), min_size=1, max_size=5),
    beta=st.floats(0.01, 2),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_sdpo_against_one_is_dpo_to_the_last_bit(
    ratios: list[tuple[float, float]], beta: float, dtype: torch.dtype
) -> None:
    def loss_and_gradient(soft: bool) -> tuple[torch.Tensor, ...]:
        ours = torch.tensor([d for d, _ in ratios], dtype=dtype, requires_grad=True)
        others = torch.tensor([u for _, u in ratios], dtype=dtype, requires_grad=True)
        loss = (
            sdpo_loss(ours, others, torch.eye(len(ratios), dtype=torch.bool), beta=beta)
            if soft
            else dpo_loss(ours, others, beta=beta)
        )
        return loss, *torch.autograd.grad(loss.sum(), (ours, others))

    for soft, plain in zip(loss_and_gradient(True), loss_and_gradient(False), strict=True):
        assert torch.equal(soft, plain)


@given(st.lists(nats, min_size=1, max_size=6), nats, st.floats(0.01, 2))
def test_sdpo_is_at_least_the_dpo_of_the_hardest_and_grows_with_each(
    undesirable: list[float], desirable: float, beta: float
) -> None:
    ours = torch.tensor([desirable], dtype=torch.float64)
    others = torch.tensor(undesirable, dtype=torch.float64)
    hardest = dpo_loss(ours, others.max(), beta=beta).item()
    losses = [
        sdpo_loss(ours, others[:n], torch.ones(1, n, dtype=torch.bool), beta=beta).item()
        for n in range(1, len(undesirable) + 1)
    ]
    assert losses[-1] >= hardest * (1 - 1e-12)
    assert losses == sorted(losses)


def test_sdpo_holds_far_from_zero() -> None:
    ours = torch.tensor([0.0, 0.0], requires_grad=True)
    others = torch.tensor([-200.0, 100.0, 100.0, -100.0], requires_grad=True)
    same_group = torch.tensor([[True, True, True, False], [False, False, False, True]])
    losses = sdpo_loss(ours, others, same_group, beta=2.0)
    # exp(200) is past float32, exp(-200) below it: the two at 100 share the sum.
    assert losses.tolist() == pytest.approx([200 + math.log(2), 0.0])
    losses.sum().backward()  # type: ignore[no-untyped-call]
    assert ours.grad is not None
    assert ours.grad.tolist() == pytest.approx([-2.0, 0.0], rel=1e-4)
    assert others.grad is not None
    assert others.grad.tolist() == pytest.approx([0.0, 1.0, 1.0, 0.0], rel=1e-4)


@pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled")
@pytest.mark.parametrize("num_undesirable", [0, 2])
def test_sdpo_against_nothing_is_zero_with_no_gradient(num_undesirable: int) -> None:
    ours = torch.tensor([-3.0, 4.0], requires_grad=True)
    others = torch.tensor([1.0, 2.0][:num_undesirable], requires_grad=True)
    # Anomaly mode fails where a NaN arises on the way, even one that is masked later.
    with torch.autograd.detect_anomaly(check_nan=True):
        losses = sdpo_loss(
            ours, others, torch.zeros(2, num_undesirable, dtype=torch.bool), beta=0.7
        )
        losses.sum().backward()  # type: ignore[no-untyped-call]
    assert losses.tolist() == [0, 0]
    assert ours.grad is not None
    assert ours.grad.tolist() == [0, 0]
