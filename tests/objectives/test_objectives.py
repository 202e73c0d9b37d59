import math
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.tiny_objectives import at_baseline
from pkgllm.errors import FederationError
from pkgllm.objectives import OBJECTIVES
from pkgllm.objectives.apo_zero import ApoZero
from pkgllm.objectives.dpo import Dpo, dpo_loss
from pkgllm.objectives.kto import Kto, kl_estimate, kto_loss
from pkgllm.objectives.objective import Objective
from pkgllm.objectives.scored_groups import ScoredGroups
from pkgllm.objectives.sdpo import Sdpo
from pkgllm.objectives.sft import Sft

nats = st.floats(-20, 20)


def two_groups() -> ScoredGroups:
    """Group 0 holds a desirable and two undesirable completions, group 1 one of each."""
    return ScoredGroups(
        policy=torch.tensor([-2.0, -3.0, -4.0, -5.0, -6.0]),
        reference=torch.tensor([-3.0, -3.5, -3.0, -5.0, -9.0]),
        desirable=torch.tensor([True, False, False, False, True]),
        num_tokens=torch.tensor([2, 3, 1, 4, 2]),
        group_index=torch.tensor([0, 0, 0, 1, 1]),
        num_groups=2,
        mismatched_log_ratio=torch.tensor([0.5, 1.5]),
    )


@st.composite
def batches(draw: st.DrawFn) -> ScoredGroups:
    """Groups of any make-up, an empty one too, their completions in any order."""
    num_groups = draw(st.integers(1, 4))
    completions = draw(
        st.lists(
            st.tuples(st.integers(0, num_groups - 1), st.booleans(), nats, nats, st.integers(1, 9)),
            min_size=1,
            max_size=14,
        )
    )
    groups, desirable, policy, reference, num_tokens = zip(*completions, strict=True)
    return ScoredGroups(
        policy=torch.tensor(policy, dtype=torch.float64, requires_grad=True),
        reference=torch.tensor(reference, dtype=torch.float64),
        desirable=torch.tensor(desirable),
        num_tokens=torch.tensor(num_tokens),
        group_index=torch.tensor(groups),
        num_groups=num_groups,
        mismatched_log_ratio=torch.empty(0),
    )


def of_group(groups: ScoredGroups, group: int, *, desirable: bool) -> torch.Tensor:
    """Log-ratios of one class in one group, in order."""
    kept = (groups.group_index == group) & (groups.desirable == desirable)
    return groups.log_ratio[kept]


def loss_and_gradient(objective: Objective, groups: ScoredGroups) -> tuple[float, torch.Tensor]:
    loss = objective.loss(groups)
    (gradient,) = torch.autograd.grad(loss, groups.policy)
    return loss.item(), gradient


def test_every_group_counts_the_same() -> None:
    groups = two_groups()
    each = kto_loss(groups.log_ratio, groups.desirable, kl_baseline=1.0, beta=0.5)
    expected = (each[:3].mean() + each[3:].mean()) / 2
    kto = Kto(beta=0.5)
    assert kto.loss(groups).item() == pytest.approx(expected.item())


WEIGHTS: dict[str, Any] = {"beta": 0.5, "desirable_weight": 1.3, "undesirable_weight": 0.6}


def test_kto_with_a_baseline_that_was_sent_by_hand() -> None:
    groups = two_groups()
    loss = Kto(**WEIGHTS, nll_weight=0.25, kl_baseline="public").loss(groups, 2.0)
    # Log-ratios 1, 0.5, -1 and 0, 3; less the baseline and halved -0.5, -0.75, -1.5 and -1, 0.5.
    first = (1.3 * _off(-0.5) + 0.6 * _off(0.75) + 0.6 * _off(1.5)) / 3
    second = (0.6 * _off(1.0) + 1.3 * _off(0.5)) / 2
    # -log p of the desirable ones is 2 and 6.
    assert loss.item() == pytest.approx((first + second) / 2 + 0.25 * 4.0)


def _off(advantage: float) -> float:
    """1 - sigmoid."""
    return 1 / (1 + math.exp(advantage))


@pytest.mark.slow
@given(batches(), st.lists(nats, min_size=1, max_size=5), st.floats(0, 1))
def test_sent_the_batchs_own_baseline_it_is_stock_kto(
    groups: ScoredGroups, mismatched: list[float], nll_weight: float
) -> None:
    groups = replace(groups, mismatched_log_ratio=torch.tensor(mismatched, dtype=torch.float64))
    stock = Kto(**WEIGHTS, nll_weight=nll_weight)
    sent = kl_estimate(groups.mismatched_log_ratio).item()
    public = replace(stock, kl_baseline="public")
    loss, gradient = loss_and_gradient(at_baseline(public, sent), groups)
    expected, expected_gradient = loss_and_gradient(stock, groups)
    assert loss == pytest.approx(expected, rel=1e-12)
    torch.testing.assert_close(gradient, expected_gradient)


def test_a_round_gives_its_baseline_to_the_objective_that_takes_it() -> None:
    groups, public, zero = two_groups(), Kto(**WEIGHTS, kl_baseline="public"), ApoZero(**WEIGHTS)
    assert public.loss(groups, 0.0).item() == zero.loss(groups).item()
    assert public.loss(groups, 1.0).item() != zero.loss(groups).item()
    public.check_baseline(1.0)
    zero.check_baseline(None)
    for missing in (lambda: public.check_baseline(None), lambda: public.loss(groups)):
        with pytest.raises(FederationError, match="from the server, which sent none; give both"):
            missing()
    with pytest.raises(FederationError, match=r"sent the KL baseline 1\.5, and the objective"):
        zero.check_baseline(1.5)
    for impossible in (-0.1, math.nan, math.inf):
        with pytest.raises(ValueError, match="kl_baseline must be finite and at least 0, got"):
            public.check_baseline(impossible)


def test_dpo_takes_every_pair_inside_a_group_and_none_across() -> None:
    groups = two_groups()
    ratio = groups.log_ratio
    within_first = dpo_loss(ratio[[0, 0]], ratio[[1, 2]], beta=0.5).mean()
    within_second = dpo_loss(ratio[4], ratio[3], beta=0.5)
    loss = Dpo(beta=0.5).loss(groups)
    assert loss.item() == pytest.approx(((within_first + within_second) / 2).item())


@pytest.mark.slow
@given(batches(), st.floats(0.01, 2))
def test_matched_dpo_pairs_first_with_first(groups: ScoredGroups, beta: float) -> None:
    expected = groups.policy.sum() * 0
    for group in range(groups.num_groups):
        winners = of_group(groups, group, desirable=True)
        losers = of_group(groups, group, desirable=False)
        pairs = list(zip(winners, losers, strict=False))
        for winner, loser in pairs:
            each = dpo_loss(winner, loser, beta=beta)
            expected = expected + each / len(pairs) / groups.num_groups
    (gradient,) = torch.autograd.grad(expected, groups.policy)
    objective = Dpo(beta=beta, nll_weight=0, pairs="matched")
    loss, ours = loss_and_gradient(objective, groups)
    assert loss == pytest.approx(expected.item(), rel=1e-9, abs=1e-12)
    torch.testing.assert_close(ours, gradient)


def test_matched_dpo_leaves_out_what_is_over() -> None:
    groups = two_groups()
    ratio = groups.log_ratio
    pairs = dpo_loss(ratio[[0, 4]], ratio[[1, 3]], beta=0.5)
    matched = Dpo(beta=0.5, nll_weight=0.25, pairs="matched")
    # The likelihood term, 4, is that of every desirable completion.
    assert matched.loss(groups).item() == pytest.approx(pairs.mean().item() + 0.25 * 4)


@pytest.mark.slow
@given(batches(), st.floats(0.01, 2))
def test_sdpo_against_one_undesirable_completion_is_dpo(groups: ScoredGroups, beta: float) -> None:
    first = [
        index
        for group in range(groups.num_groups)
        for index in ((groups.group_index == group) & ~groups.desirable).nonzero()[:1, 0].tolist()
    ]
    kept = groups.desirable.clone()
    kept[first] = True
    fewer = replace(
        groups,
        policy=groups.policy.detach()[kept].requires_grad_(),
        reference=groups.reference[kept],
        desirable=groups.desirable[kept],
        group_index=groups.group_index[kept],
    )
    soft, soft_gradient = loss_and_gradient(Sdpo(beta=beta), fewer)
    plain, plain_gradient = loss_and_gradient(Dpo(beta=beta), fewer)
    # The order of a sum may differ.
    assert soft == pytest.approx(plain, rel=1e-12)
    torch.testing.assert_close(soft_gradient, plain_gradient, rtol=1e-12, atol=1e-14)


def test_sdpo_adds_the_likelihood_of_the_desirable_completions() -> None:
    groups = two_groups()
    plain = Sdpo(beta=0.5).loss(groups).item()
    weighted = Sdpo(beta=0.5, nll_weight=0.25).loss(groups).item()
    assert weighted == pytest.approx(plain + 0.25 * 4)


def test_sdpo_is_mapped_over_batches_of_one_size() -> None:
    groups, objective = two_groups(), Sdpo(beta=0.5)

    def loss(policy: torch.Tensor, desirable: torch.Tensor) -> torch.Tensor:
        return objective.loss(replace(groups, policy=policy, desirable=desirable))

    policies = torch.stack([groups.policy, groups.policy.flip(0), groups.policy * 2])
    # The last batch has a group without a desirable and one without an undesirable completion.
    desirable = torch.tensor([[1, 0, 0, 0, 1], [0, 1, 0, 1, 0], [0, 0, 0, 1, 1]], dtype=torch.bool)
    gradient_and_loss = torch.func.grad_and_value(loss)
    gradients, losses = torch.vmap(gradient_and_loss)(policies, desirable)
    for index in range(3):
        alone = gradient_and_loss(policies[index], desirable[index])
        torch.testing.assert_close((gradients[index], losses[index]), alone)


def test_sdpo_reads_no_value_and_makes_nothing_on_another_device() -> None:
    groups = two_groups()
    # A meta tensor has a device and a shape but no values, so a shape that depends on them fails.
    policy = groups.policy.to("meta").requires_grad_()
    loss = Sdpo(beta=0.5).loss(
        replace(
            groups,
            policy=policy,
            reference=groups.reference.to("meta"),
            desirable=groups.desirable.to("meta"),
            group_index=groups.group_index.to("meta"),
        )
    )
    (gradient,) = torch.autograd.grad(loss, policy)
    assert (loss.shape, loss.device.type, gradient.device.type) == ((), "meta", "meta")


@pytest.mark.parametrize(
    "objective",
    [
        Dpo(beta=0.5),
        Dpo(beta=0.5, nll_weight=0, pairs="matched"),
        Sdpo(beta=0.5),
    ],
    ids=["dpo", "dpo-matched", "sdpo"],
)
@pytest.mark.parametrize("completion", [0, 1], ids=["desirable", "undesirable"])
def test_a_group_without_a_pair_counts_zero(objective: Objective, completion: int) -> None:
    groups = two_groups()
    kept = [completion, 3, 4]
    policy = groups.policy[kept].requires_grad_()
    beside = replace(
        groups,
        policy=policy,
        reference=groups.reference[kept],
        desirable=groups.desirable[kept],
        group_index=groups.group_index[kept],
    )
    loss, gradient = loss_and_gradient(objective, beside)
    other = dpo_loss(groups.log_ratio[4], groups.log_ratio[3], beta=0.5).item()
    assert loss == pytest.approx(other / 2)
    assert gradient[0] == 0
    assert (gradient[1:] != 0).all()


def test_only_what_is_counted_enters_a_mean() -> None:
    values = torch.tensor([1.0, 50.0, 3.0, torch.nan, 8.0], requires_grad=True)
    counted = torch.tensor([True, False, True, False, True])
    groups = replace(two_groups(), group_index=torch.tensor([0, 0, 0, 1, 2]), num_groups=3)
    mean = groups.mean(values, counted=counted)
    assert mean.item() == pytest.approx((2 + 0 + 8) / 3)
    mean.backward()  # type: ignore[no-untyped-call]
    assert values.grad is not None
    assert values.grad.tolist() == pytest.approx([1 / 6, 0, 1 / 6, 0, 1 / 3])


def test_likelihood_term_is_the_mean_over_desirable_completions() -> None:
    groups = two_groups()
    # -log p of the desirable ones: 2 in group 0, 6 in group 1; mean over groups 4.
    assert Sft().loss(groups).item() == pytest.approx(4.0)
    for weight in (0.0, 0.25):
        apo = ApoZero(beta=0.5, nll_weight=weight)
        each = kto_loss(groups.log_ratio, groups.desirable, kl_baseline=0.0, beta=0.5)
        plain = (each[:3].mean() + each[3:].mean()) / 2
        assert apo.loss(groups).item() == pytest.approx(plain.item() + weight * 4.0)


@pytest.mark.slow
@pytest.mark.parametrize(
    "objective",
    [*(OBJECTIVES[name](name=name) for name in OBJECTIVES), Kto(kl_baseline="public")],
    ids=lambda objective: f"{objective.name} {getattr(objective, 'kl_baseline', '')}",
)
@settings(deadline=None)
@given(groups=batches())
def test_the_loss_depends_on_what_the_objective_declares(
    objective: Objective, groups: ScoredGroups
) -> None:
    groups = replace(groups, mismatched_log_ratio=torch.tensor([0.5, 3.0], dtype=torch.float64))
    sent = 1.5 if objective.takes_baseline else None

    def gradient(of: ScoredGroups) -> torch.Tensor:
        (found,) = torch.autograd.grad(objective.loss(of, sent), of.policy)
        return found

    expected = gradient(groups)
    if not objective.needs_reference:
        other = replace(groups, reference=groups.reference - 7)
        assert torch.equal(gradient(other), expected)
    if not objective.needs_mismatched:
        empty = replace(groups, mismatched_log_ratio=torch.empty(0, dtype=torch.float64))
        assert torch.equal(gradient(empty), expected)
    if objective.needs_pairs:
        assert not gradient(replace(groups, desirable=torch.zeros_like(groups.desirable))).any()
    if objective.needs_desirable:
        assert not expected[groups.group_index == _without_desirable(groups)].any()
    if not objective.couples_examples:
        # Whatever the first group holds, the gradient of the others is the same.
        first = groups.group_index == 0
        moved = replace(groups, policy=(groups.policy - 3.0 * first).detach().requires_grad_())
        torch.testing.assert_close(gradient(moved)[~first], expected[~first])


def _without_desirable(groups: ScoredGroups) -> int:
    """A group that has no desirable completion, -1 where each has one."""
    having = set(groups.group_index[groups.desirable].tolist())
    return next((group for group in range(groups.num_groups) if group not in having), -1)


def test_settings_are_those_of_the_registry_and_need_no_torch() -> None:
    code = (
        "import sys; from pkgllm.objectives import OBJECTIVES; "
        "print(*(made().name for made in OBJECTIVES.own())); assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == list(OBJECTIVES)
