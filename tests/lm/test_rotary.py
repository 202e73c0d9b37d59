from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from helpers.tiny_decoders import MAX_POSITIONS, tiny_decoder
from helpers.tiny_lanes import random
from pkgllm.lm.rotary import Rotation

YARN: dict[str, Any] = {
    "rope_type": "yarn",
    "rope_theta": 500.0,
    "factor": 4.0,
    "original_max_position_embeddings": 16,
}
positions = st.lists(st.integers(0, MAX_POSITIONS - 1), min_size=1, max_size=8)


@pytest.fixture(scope="module", params=["plain", "yarn"])
def rotary(request: pytest.FixtureRequest) -> Any:
    """A model's table of angles; that of yarn scales the heads as well."""
    changes: dict[str, Any] = {"rope_parameters": YARN} if request.param == "yarn" else {}
    model: Any = tiny_decoder("llama", **changes)
    return model.model.rotary_emb


@settings(deadline=None, max_examples=40)
@given(positions, st.integers(1, 3))
def test_forward_and_backward_equal_those_of_transformers(
    rotary: Any, at: list[int], num_heads: int
) -> None:
    heads = random(len(at), num_heads, 8).requires_grad_()
    gradient = random(len(at), num_heads, 8, seed=1)
    cos, sin = rotary(heads, torch.tensor([at]))
    # With heads before rows, as transformers has them.
    by_head = heads.transpose(0, 1)[None]
    expected = apply_rotary_pos_emb(by_head, by_head, cos, sin)[0][0].transpose(0, 1)
    (expected_gradient,) = torch.autograd.grad(expected, heads, gradient)
    rotation = Rotation.at(torch.tensor(at), rotary, heads.detach())
    torch.testing.assert_close(rotation(heads.detach()), expected.detach())
    torch.testing.assert_close(rotation.backward(gradient), expected_gradient)


@settings(deadline=None, max_examples=40)
@given(positions, st.lists(st.floats(-3, 3, width=32), min_size=1, max_size=3))
def test_a_scaled_rotation_multiplies_both_ways(
    rotary: Any, at: list[int], factors: list[float]
) -> None:
    heads = random(len(at), len(factors), 8)
    rotation = Rotation.at(torch.tensor(at), rotary, heads)
    by_head = torch.tensor(factors)[:, None]
    scaled = rotation.scaled(by_head)
    torch.testing.assert_close(scaled(heads), rotation(heads) * by_head)
    torch.testing.assert_close(scaled.backward(heads), rotation.backward(heads) * by_head)
    twice = rotation.scaled(2.0)
    assert torch.equal(twice(heads), rotation(heads) * 2)


def test_a_turn_by_hand() -> None:
    # Two coordinates, (1, 0) and (0, 1), turned by a right angle and back.
    right_angle = Rotation(torch.zeros(1, 1, 4), torch.tensor([[[-1.0, -1.0, 1.0, 1.0]]]))
    heads = torch.tensor([[[1.0, 0.0, 0.0, 1.0]]])
    turned = right_angle(heads)
    assert turned.tolist() == [[[0.0, -1.0, 1.0, 0.0]]]
    assert torch.equal(right_angle.backward(turned), heads)


def test_position_0_is_left_as_it_is_and_types_are_kept(rotary: Any) -> None:
    heads = random(2, 3, 8).bfloat16()
    rotation = Rotation.at(torch.tensor([0, 0]), rotary, heads)
    assert rotation.cos.dtype == rotation(heads).dtype == torch.bfloat16
    if rotary.attention_scaling == 1:
        assert torch.equal(rotation(heads), heads)
