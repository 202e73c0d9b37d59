from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PeftModel

from helpers.tiny_cohorts import OBJECTIVES, ROOM, UNEQUAL, own_adapters
from helpers.tiny_groups import a_group, a_policy, log_probability
from pkgllm.errors import ModelError
from pkgllm.lm.adapter import adapter_state, load_adapter_state
from pkgllm.lm.base_model import load_base_model
from pkgllm.lm.lanes.decoder import LaneDecoder
from pkgllm.lm.lanes.lora_factors import StackedFactors
from pkgllm.training import lane_passes, sequential
from pkgllm.training.batches import branches_of
from pkgllm.training.lane_memory import PassCost
from pkgllm.training.lane_passes import (
    branch_tokens,
    differentiate,
    is_batched,
    reference_scorer,
    score_lanes,
)
from pkgllm.training.log_probabilities import (
    Branch,
    completion_log_probabilities,
    pack_branches,
)

CLIENTS = sorted(UNEQUAL)
LANES = [branches_of(UNEQUAL[client], OBJECTIVES["kto"]) for client in CLIENTS]


@pytest.fixture(scope="module")
def policy(tiny_base_folder: Path) -> PeftModel:
    return a_policy(load_base_model(str(tiny_base_folder), device="cpu"))


@pytest.fixture(params=["lane by lane", "batched"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways in which lanes go through a model; the one of a GPU runs on a CPU as well."""
    if request.param == "batched":
        monkeypatch.setattr(lane_passes, "is_batched", lambda decoder: True)
    return str(request.param)


def stacked(decoder: LaneDecoder, policy: PeftModel) -> StackedFactors:
    """An adapter of its own for each lane."""
    adapters = own_adapters(policy, CLIENTS)
    values = torch.stack([decoder.layout.to_vector(adapters[client]) for client in CLIENTS])
    return StackedFactors(values, torch.zeros_like(values), decoder.scale, decoder.dtype)


@torch.no_grad()
def by_definition(policy: PeftModel, branches: Sequence[Branch]) -> torch.Tensor:
    return torch.stack(
        [
            log_probability(policy, group.prompt.token_ids, completion.token_ids)
            for group, completions in branches
            for completion in completions
        ]
    )


def test_a_group_takes_its_prompt_once_and_no_last_token() -> None:
    group = a_group((5, 6, 7), [(20, 21, 2)], [(22, 2)], ((23,),))
    assert branch_tokens((group, group.completions)) == 3 + 2 + 1
    assert branch_tokens((group, (*group.completions, *group.mismatched))) == 3 + 2 + 1 + 0
    assert branch_tokens((group, ())) == 3


def test_a_cpu_takes_lane_by_lane(policy: PeftModel) -> None:
    assert not is_batched(LaneDecoder(policy))


@pytest.mark.parametrize("checkpoint", [False, True])
def test_every_lane_is_scored_with_its_own_adapter(
    policy: PeftModel, way: str, checkpoint: bool
) -> None:
    decoder = LaneDecoder(policy)
    scored = score_lanes(decoder, LANES, stacked(decoder, policy), checkpoint=checkpoint)
    assert scored.log_probs.dtype == torch.float32
    assert scored.bounds[0] == 0
    assert scored.bounds[-1] == len(scored.log_probs)
    for lane, (client, adapter) in enumerate(own_adapters(policy, CLIENTS).items()):
        load_adapter_state(policy, adapter)
        found = scored.log_probs[scored.bounds[lane] : scored.bounds[lane + 1]]
        expected = by_definition(policy, LANES[lane])
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-5, msg=client)
    tokens = [sum(branch_tokens(branch) for branch in branches) for branches in LANES]
    assert scored.num_tokens == sum(tokens)
    filled = len(tokens) * max(tokens) - sum(tokens)
    assert filled > 0
    assert scored.num_padding == (filled if way == "batched" else 0)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("checkpoint", [False, True])
def test_gradients_are_those_of_autograd(policy: PeftModel, checkpoint: bool) -> None:
    decoder = LaneDecoder(policy)
    factors = stacked(decoder, policy)
    scored = score_lanes(decoder, LANES, factors, checkpoint=checkpoint)
    wanted = torch.randn(len(scored.log_probs), generator=torch.Generator().manual_seed(7))
    differentiate(decoder, scored, wanted)
    for lane, adapter in enumerate(own_adapters(policy, CLIENTS).values()):
        load_adapter_state(policy, adapter)
        own = wanted[scored.bounds[lane] : scored.bounds[lane + 1]]
        packed = pack_branches(LANES[lane], policy.device)
        policy.zero_grad()
        (completion_log_probabilities(policy, packed) * own).sum().backward()  # type: ignore[no-untyped-call]
        gradients = {
            name.replace(".default", ""): parameter.grad
            for name, parameter in policy.named_parameters()
            if parameter.grad is not None
        }
        assert gradients.keys() == adapter.keys()
        expected = decoder.layout.to_vector(gradients)
        assert factors.gradients is not None
        torch.testing.assert_close(
            factors.gradients[lane], expected, atol=1e-5 * expected.abs().max().item(), rtol=0
        )


def test_a_lane_is_not_touched_by_its_neighbours(policy: PeftModel) -> None:
    decoder = LaneDecoder(policy)
    factors = stacked(decoder, policy)
    together = score_lanes(decoder, LANES, factors).log_probs
    factors.values[2] = torch.nan
    spoiled = score_lanes(decoder, LANES, factors)
    first, last = spoiled.bounds[2], spoiled.bounds[3]
    assert spoiled.log_probs[first:last].isnan().all()
    assert torch.equal(spoiled.log_probs[:first], together[:first])
    assert torch.equal(spoiled.log_probs[last:], together[last:])


@pytest.mark.usefixtures("way")
def test_without_factors_it_is_the_base_model_and_there_is_no_way_back(policy: PeftModel) -> None:
    decoder = LaneDecoder(policy)
    scored = score_lanes(decoder, LANES, None)
    assert scored.tape is None
    with policy.disable_adapter():
        expected = torch.cat([by_definition(policy, branches) for branches in LANES])
    torch.testing.assert_close(scored.log_probs, expected, atol=1e-4, rtol=1e-5)


BRANCHES = [branch for branches in LANES for branch in branches]


@pytest.mark.slow
@settings(max_examples=15)
@given(
    order=st.permutations(range(len(BRANCHES))),
    num=st.integers(1, len(BRANCHES)),
    more=st.floats(0, 1),
)
def test_the_reference_is_the_sequential_one_in_any_order_and_memory(
    policy: PeftModel, order: list[int], num: int, more: float
) -> None:
    branches = [BRANCHES[index] for index in order[:num]]
    decoder = LaneDecoder(policy)
    tokens = [branch_tokens(branch) for branch in branches]
    cost = PassCost.of(decoder, longest_group=max(tokens), checkpoint=False, trains=False)
    least = cost.total(rows=max(tokens), lanes=1)
    most = cost.total(rows=sum(tokens), lanes=num)
    found = reference_scorer(decoder, least + int(more * (most - least)))(branches)
    expected = sequential.reference_scorer(policy)(branches)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-6)
    with pytest.raises(ModelError, match=r"training\.memory_gib must be at least"):
        reference_scorer(decoder, least - 1)(branches)


def test_the_reference_does_not_move_with_the_policy(policy: PeftModel) -> None:
    score = reference_scorer(LaneDecoder(policy), ROOM)
    before, state = score(BRANCHES), adapter_state(policy)
    for adapter in own_adapters(policy, CLIENTS).values():
        load_adapter_state(policy, adapter)
        assert torch.equal(score(BRANCHES), before)
    load_adapter_state(policy, state)
