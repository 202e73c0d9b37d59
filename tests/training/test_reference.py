import pytest
import torch
from peft import PeftModel
from tiny_groups import a_completion, a_group, a_policy, log_probability, stir

from pkgllm.lm.base_model import BaseModel
from pkgllm.training.log_probabilities import Branch
from pkgllm.training.reference import ReferenceCache


@pytest.fixture
def policy(tiny_base: BaseModel) -> PeftModel:
    return a_policy(tiny_base)


def branches() -> list[Branch]:
    groups = [
        a_group((5, 9, 11, 40), [(20, 21, 2)], [(22, 2), (23, 24, 2)]),
        a_group((6, 8), [(20, 21, 2)], [(50, 51, 52, 2)]),
    ]
    return [(group, group.completions) for group in groups]


@torch.no_grad()
def directly(policy: PeftModel, asked: list[Branch]) -> list[float]:
    with policy.disable_adapter():
        return [
            log_probability(policy, group.prompt.token_ids, completion.token_ids).item()
            for group, completions in asked
            for completion in completions
        ]


def test_equals_a_direct_computation_without_the_adapter(policy: PeftModel) -> None:
    found = ReferenceCache(policy, "base").log_probabilities(branches())
    assert found.dtype == torch.float32
    assert found.tolist() == pytest.approx(directly(policy, branches()), abs=1e-4)
    with torch.no_grad():
        tuned = [
            log_probability(policy, group.prompt.token_ids, completion.token_ids).item()
            for group, completions in branches()
            for completion in completions
        ]
    assert found.tolist() != pytest.approx(tuned, abs=0.05)


def test_is_computed_once_whatever_becomes_of_the_policy(policy: PeftModel) -> None:
    cache = ReferenceCache(policy, "base")
    assert len(cache) == 0
    first = cache.log_probabilities(branches())
    # Five completions: the same title after two prompts is two of them.
    assert len(cache) == 5
    stir(policy, seed=9)
    # Were a value computed again, a spoiled base model would show.
    for name, parameter in policy.named_parameters():
        if "lora_" not in name:
            parameter.data.zero_()
    assert torch.equal(cache.log_probabilities(branches()), first)
    assert torch.equal(cache.log_probabilities(branches()[1:]), first[3:])
    assert len(cache) == 5


def test_only_what_is_missing_is_added(policy: PeftModel) -> None:
    cache = ReferenceCache(policy, "base")
    (group, completions), other = branches()
    first = cache.log_probabilities([(group, completions[:1])])
    extended = [other, (group, (*completions, a_completion((90, 91, 2))))]
    both = cache.log_probabilities(extended)
    assert len(cache) == 6
    assert both.tolist() == pytest.approx(directly(policy, extended), abs=1e-4)
    assert both[2].item() == pytest.approx(first.item(), abs=1e-5)


def test_the_adapter_is_as_it_was(policy: PeftModel) -> None:
    before = {name: p.requires_grad for name, p in policy.named_parameters()}
    values = {name: p.detach().clone() for name, p in policy.named_parameters()}
    assert 0 < sum(before.values()) < len(before)
    ReferenceCache(policy, "base").log_probabilities(branches())
    assert {name: p.requires_grad for name, p in policy.named_parameters()} == before
    for name, parameter in policy.named_parameters():
        assert torch.equal(parameter, values[name])
        assert parameter.grad is None
    group, completions = branches()[0]
    with torch.no_grad():
        switched_on = log_probability(policy, group.prompt.token_ids, completions[0].token_ids)
    assert switched_on.item() != pytest.approx(directly(policy, branches())[0], abs=1e-3)


def test_where_a_prompt_ends_is_part_of_the_key(policy: PeftModel) -> None:
    cache = ReferenceCache(policy, "base")
    first, second = a_group((5, 9, 11), [(20, 2)], []), a_group((5, 9), [(11, 20, 2)], [])
    cache.log_probabilities([(group, group.completions) for group in (first, second)])
    assert len(cache) == 2
