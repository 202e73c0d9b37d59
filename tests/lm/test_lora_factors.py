import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.tiny_decoders import tiny_decoder, with_random_adapter
from helpers.tiny_lanes import random
from pkgllm.errors import ModelError
from pkgllm.lm.adapter import AdapterState, adapter_state, load_adapter_state
from pkgllm.lm.lanes.decoder import LaneDecoder
from pkgllm.lm.lanes.lora_factors import FactorLayout, StackedFactors

sizes = st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=4)
ATTENTION = [("q", 4, 6), ("k", 4, 2), ("v", 4, 2), ("o", 6, 4)]


def random_state(layers: list[tuple[str, int, int]], lora_rank: int) -> AdapterState:
    actual = {}
    for seed, (name, num_in, num_out) in enumerate(layers):
        actual[f"{name}.lora_A.weight"] = random(lora_rank, num_in, seed=seed)
        actual[f"{name}.lora_B.weight"] = random(num_out, lora_rank, seed=100 + seed)
    return {key: actual[key] for key in sorted(actual)}


@settings(deadline=None, max_examples=60)
@given(sizes, st.integers(1, 3))
def test_an_adapter_goes_into_a_vector_and_back(
    layer_sizes: list[tuple[int, int]], lora_rank: int
) -> None:
    layers = [(f"layer {9 - at}", *size) for at, size in enumerate(layer_sizes)]
    layout = FactorLayout(layers, lora_rank=lora_rank)
    state = random_state(layers, lora_rank)
    vector = layout.to_vector(state)
    assert vector.dtype == torch.float32
    assert len(vector) == layout.num_values == sum(value.numel() for value in state.values())
    back = layout.to_state(vector)
    assert list(back) == list(state)
    assert all(torch.equal(back[key], state[key]) for key in state)
    # Every value has one place: A before B, in the order of the layers.
    slots = [layout.slots[name] for name, _, _ in layers]
    ends = [0, *(slot.end_a for slot in slots), *(slot.end_b for slot in slots)]
    starts = [slot.start_a for slot in slots] + [slot.start_b for slot in slots]
    assert starts == ends[:-1]
    assert ends[len(slots)] == layout.num_lora_a
    assert ends[-1] == layout.num_values


def test_a_state_is_a_copy_of_which_each_part_can_be_saved_by_itself() -> None:
    layout = FactorLayout(ATTENTION, lora_rank=2)
    vector = random(layout.num_values)
    state = layout.to_state(vector)
    before = {key: value.clone() for key, value in state.items()}
    vector.zero_()
    assert all(torch.equal(state[key], before[key]) for key in state)
    assert all(value.untyped_storage().nbytes() == 4 * value.numel() for value in state.values())


def test_other_types_become_float32() -> None:
    layout = FactorLayout([("q", 3, 2)], lora_rank=1)
    state = random_state([("q", 3, 2)], 1)
    rough = {key: value.bfloat16().requires_grad_() for key, value in state.items()}
    vector = layout.to_vector(rough)
    assert vector.dtype == torch.float32
    assert not vector.requires_grad
    assert torch.equal(vector[:3], rough["q.lora_A.weight"].detach().float()[0])


@pytest.mark.parametrize("targets", ["all-linear", ["v_proj", "q_proj"], ["up_proj", "k_proj"]])
def test_keys_are_those_of_peft(targets: str | list[str]) -> None:
    policy = with_random_adapter(tiny_decoder(), targets)
    layout = LaneDecoder(policy).layout
    state = adapter_state(policy)
    back = layout.to_state(layout.to_vector(state))
    assert list(back) == list(state)
    assert all(torch.equal(back[key], state[key]) for key in state)
    load_adapter_state(policy, layout.to_state(torch.arange(layout.num_values).float()))
    again = layout.to_vector(adapter_state(policy))
    assert torch.equal(again, torch.arange(layout.num_values).float())


def test_a_state_that_does_not_fit_is_refused() -> None:
    layout = FactorLayout([("q", 3, 2), ("v", 3, 1)], lora_rank=1)
    state = random_state([("q", 3, 2), ("v", 3, 1)], 1)
    with pytest.raises(
        ModelError,
        match=r"does not fit the base model: q\.lora_B\.weight must have shape \(2, 1\), got nothi",
    ):
        layout.to_vector({key: state[key] for key in state if key != "q.lora_B.weight"})
    with pytest.raises(ModelError, match=r": x must have shape none, as it is foreign, got \(1,\)"):
        layout.to_vector(state | {"x": torch.zeros(1)})
    # The same number of values in another shape would fill the vector just as well.
    with pytest.raises(ModelError, match=r"v\.lora_A\.weight must have .* \(1, 3\), got \(3, 1\)"):
        layout.to_vector(state | {"v.lora_A.weight": torch.zeros(3, 1)})


def stacked(dtype: torch.dtype = torch.float32) -> tuple[FactorLayout, StackedFactors]:
    layout = FactorLayout(ATTENTION, lora_rank=2)
    values = random(3, layout.num_values)
    return layout, StackedFactors(values, torch.zeros_like(values), 1.0, dtype)


def test_neighbours_stand_one_upon_the_other() -> None:
    layout, factors = stacked()
    states = [layout.to_state(values) for values in factors.values]
    qkv = [layout.slots[name] for name in "qkv"]
    for lane, state in enumerate(states):
        expected = torch.cat([state[f"{name}.lora_A.weight"] for name in "qkv"])
        assert torch.equal(factors.lora_a(qkv)[lane], expected)
        for name, slot in layout.slots.items():
            assert torch.equal(factors.lora_a([slot])[lane], state[f"{name}.lora_A.weight"])
            assert torch.equal(factors.lora_b(slot)[lane], state[f"{name}.lora_B.weight"])


def test_gradients_land_where_the_values_are() -> None:
    layout, factors = stacked()
    assert factors.gradients is not None
    qkv, output = [layout.slots[name] for name in "qkv"], layout.slots["o"]
    factors.lora_a_gradient(qkv).copy_(factors.lora_a(qkv))
    factors.lora_a_gradient([output]).copy_(factors.lora_a([output]))
    assert torch.equal(
        factors.gradients[:, : layout.num_lora_a], factors.values[:, : layout.num_lora_a]
    )
    assert not factors.gradients[:, layout.num_lora_a :].any()
    for slot in layout.slots.values():
        factors.lora_b_gradient(slot).copy_(factors.lora_b(slot))
    assert torch.equal(factors.gradients, factors.values)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_all_lanes_share_is_held_once(dtype: torch.dtype) -> None:
    layout, own = stacked(dtype)
    shared = StackedFactors(own.values[:1].expand(3, -1), None, 1.0, dtype)
    slot = layout.slots["k"]
    for part, of_own in (
        (shared.lora_a([slot]), own.lora_a([slot])),
        (shared.lora_b(slot), own.lora_b(slot)),
    ):
        assert part.dtype == of_own.dtype == dtype
        assert part.shape == of_own.shape
        assert part.stride(0) == 0
        assert of_own.stride(0) != 0
        assert torch.equal(part, of_own[:1].expand_as(part))
    assert not torch.equal(own.lora_b(slot)[0], own.lora_b(slot)[1])
