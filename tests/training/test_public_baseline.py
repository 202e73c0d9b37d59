"""The KL baseline of an adapter on public prompts."""

from pathlib import Path

import pytest
import torch
from peft import PeftModel

from helpers.tiny_cohorts import own_adapters, some_groups
from helpers.tiny_groups import a_group, a_policy, log_probability
from pkgllm.errors import FederationError
from pkgllm.lm.adapter import AdapterState, adapter_state, load_adapter_state, without_adapter
from pkgllm.lm.base_model import load_base_model
from pkgllm.training.public_baseline import PublicBaseline

GROUPS = some_groups(3, seed=41)


@pytest.fixture
def policy(tiny_base_folder: Path) -> PeftModel:
    return a_policy(load_base_model(str(tiny_base_folder), device="cpu"))


@pytest.fixture
def adapters(policy: PeftModel) -> list[AdapterState]:
    return list(own_adapters(policy, [f"p{number}" for number in range(6)]).values())


def by_hand(policy: PeftModel, adapter: AdapterState) -> float:
    """Mean log-ratio of every mismatched pair, each in forward passes of its own."""
    load_adapter_state(policy, adapter)
    ratios = []
    for group in GROUPS:
        for completion in group.mismatched:
            pair = group.prompt.token_ids, completion.token_ids
            with torch.no_grad():
                tuned = log_probability(policy, *pair)
                with without_adapter(policy):
                    ratios.append(float(tuned - log_probability(policy, *pair)))
    return sum(ratios) / len(ratios)


@pytest.mark.slow
def test_it_is_the_mean_log_ratio_of_mismatched_pairs_and_at_least_0(
    policy: PeftModel, adapters: list[AdapterState]
) -> None:
    baseline = PublicBaseline(policy, GROUPS)
    expected = [by_hand(policy, adapter) for adapter in adapters]
    # Both sides of the clamp are seen.
    assert min(expected) < -0.1
    assert max(expected) > 0.1
    for adapter, mean in zip(adapters, expected, strict=True):
        assert baseline(adapter) == pytest.approx(max(mean, 0.0), rel=1e-4)


def test_an_adapter_that_does_nothing_has_the_baseline_0(
    policy: PeftModel, adapters: list[AdapterState]
) -> None:
    fresh = {k: torch.zeros_like(v) if "lora_B" in k else v for k, v in adapters[0].items()}
    assert PublicBaseline(policy, GROUPS)(fresh) == 0.0


@pytest.mark.slow
def test_the_adapter_decides_to_the_bit_and_the_policy_is_left_as_it_was(
    policy: PeftModel, adapters: list[AdapterState]
) -> None:
    before = adapter_state(policy)
    trained = {name for name, p in policy.named_parameters() if p.requires_grad}
    baseline = PublicBaseline(policy, GROUPS)
    values = [baseline(adapter) for adapter in adapters]
    assert len(set(values)) > 2
    after = adapter_state(policy)
    assert all(torch.equal(after[key], value) for key, value in before.items())
    assert {name for name, p in policy.named_parameters() if p.requires_grad} == trained
    # Whatever the policy carries, and whatever was computed before.
    load_adapter_state(policy, adapters[3])
    assert [PublicBaseline(policy, GROUPS)(adapter) for adapter in adapters] == values


def test_what_is_no_number_is_an_error(policy: PeftModel, adapters: list[AdapterState]) -> None:
    baseline = PublicBaseline(policy, GROUPS)
    spoiled = {key: torch.full_like(value, torch.nan) for key, value in adapters[0].items()}
    before = adapter_state(policy)
    with pytest.raises(FederationError, match=r"must be finite.*; lower training\.learning_rate"):
        baseline(spoiled)
    assert all(torch.equal(adapter_state(policy)[key], value) for key, value in before.items())


def test_without_a_mismatched_pair_there_is_nothing_to_compute(policy: PeftModel) -> None:
    for groups in ((), (a_group((5, 9), [(20, 2)], []),)):
        with pytest.raises(ValueError, match="at least one mismatched completion, got none"):
            PublicBaseline(policy, groups)
