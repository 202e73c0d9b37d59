import pytest
import torch

from pkgllm.training import objectives
from pkgllm.training.losses import dpo_loss, kto_loss
from pkgllm.training.objectives import ScoredGroups


def two_groups() -> ScoredGroups:
    """Group 0 holds a desirable and two undesirable completions, group 1 one of each."""
    return ScoredGroups(
        policy=torch.tensor([-2.0, -3.0, -4.0, -5.0, -6.0]),
        reference=torch.tensor([-3.0, -3.5, -3.0, -5.0, -9.0]),
        desirable=torch.tensor([True, False, False, False, True]),
        group_index=torch.tensor([0, 0, 0, 1, 1]),
        num_groups=2,
        mismatched_log_ratio=torch.tensor([0.5, 1.5]),
    )


def test_every_group_counts_the_same() -> None:
    groups = two_groups()
    each = kto_loss(groups.log_ratio, groups.desirable, kl_baseline=1.0, beta=0.5)
    expected = (each[:3].mean() + each[3:].mean()) / 2
    kto = objectives.kto(beta=0.5, desirable_weight=1, undesirable_weight=1, nll_weight=0)
    assert kto.loss(groups).item() == pytest.approx(expected.item())


def test_dpo_takes_every_pair_inside_a_group_and_none_across() -> None:
    groups = two_groups()
    ratio = groups.log_ratio
    within_first = dpo_loss(ratio[[0, 0]], ratio[[1, 2]], beta=0.5).mean()
    within_second = dpo_loss(ratio[4], ratio[3], beta=0.5)
    loss = objectives.dpo(beta=0.5, nll_weight=0).loss(groups)
    assert loss.item() == pytest.approx(((within_first + within_second) / 2).item())


def test_a_group_without_a_pair_counts_zero() -> None:
    groups = two_groups()
    alone = ScoredGroups(
        policy=groups.policy[:1],
        reference=groups.reference[:1],
        desirable=groups.desirable[:1],
        group_index=groups.group_index[:1],
        num_groups=1,
        mismatched_log_ratio=torch.empty(0),
    )
    assert objectives.dpo(beta=0.5, nll_weight=0).loss(alone).item() == 0


def test_likelihood_term_is_the_mean_over_desirable_completions() -> None:
    groups = two_groups()
    # -log p of the desirable ones: 2 in group 0, 6 in group 1; mean over groups 4.
    assert objectives.sft().loss(groups).item() == pytest.approx(4.0)
    for weight in (0.0, 0.25):
        apo = objectives.apo_zero(
            beta=0.5, desirable_weight=1, undesirable_weight=1, nll_weight=weight
        )
        each = kto_loss(groups.log_ratio, groups.desirable, kl_baseline=0.0, beta=0.5)
        plain = (each[:3].mean() + each[3:].mean()) / 2
        assert apo.loss(groups).item() == pytest.approx(plain.item() + weight * 4.0)


def test_what_each_objective_asks_for() -> None:
    weights = {"beta": 0.1, "desirable_weight": 1.0, "undesirable_weight": 1.0, "nll_weight": 0.0}
    assert objectives.kto(**weights).needs_mismatched
    assert not objectives.apo_zero(**weights).needs_mismatched
    assert objectives.dpo(beta=0.1, nll_weight=0).needs_reference
    assert not objectives.sft().needs_reference
