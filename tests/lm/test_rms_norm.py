from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

from helpers.tiny_lanes import random
from pkgllm.lm.rms_norm import RmsNorm

shapes = st.tuples(st.integers(0, 4), st.integers(1, 3), st.integers(1, 9))


def by_the_book(rows: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    return rows * weight / (rows.square().mean(-1, keepdim=True) + epsilon).sqrt()


@settings(deadline=None, max_examples=80)
@given(shapes, st.sampled_from([1e-6, 0.1]), st.sampled_from([1e-3, 1.0, 30.0]), st.booleans())
def test_forward_and_backward_equal_the_formula_by_autograd(
    shape: tuple[int, int, int], epsilon: float, scale: float, by_head: bool
) -> None:
    rows, gradient = random(*shape) * scale, random(*shape, seed=1)
    # One weight for all heads, or one for each.
    weight = random(*(shape[1:] if by_head else shape[2:]), seed=2)
    exact = rows.double().requires_grad_()
    expected = by_the_book(exact, weight.double(), epsilon)
    (expected_gradient,) = torch.autograd.grad(expected, exact, gradient.double())
    before = rows.clone(), gradient.clone(), weight.clone()
    norm = RmsNorm(weight, epsilon)
    actual, inverse = norm.forward(rows)
    of_rows = norm.backward(gradient, rows, inverse)
    torch.testing.assert_close(actual.double(), expected.detach(), rtol=1e-5, atol=1e-5)
    # Small rows have large gradients.
    largest = float(expected_gradient.abs().max()) if expected_gradient.numel() else 0.0
    torch.testing.assert_close(
        of_rows.double(), expected_gradient, rtol=1e-5, atol=1e-5 * max(largest, 1.0)
    )
    assert torch.equal(norm.again(rows, inverse), actual)
    assert torch.equal(norm(rows), actual)
    assert all(
        torch.equal(one, other) for one, other in zip((rows, gradient, weight), before, strict=True)
    )


@pytest.mark.parametrize("kind", [LlamaRMSNorm, Qwen3RMSNorm])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_forward_and_backward_equal_the_module_of_transformers(
    kind: Any, dtype: torch.dtype
) -> None:
    module = kind(24, eps=0.02)
    module.weight.data = random(24)
    module.to(dtype).requires_grad_(False)
    rows = (random(7, 24, seed=1) * 3).to(dtype).requires_grad_()
    gradient = random(7, 24, seed=2).to(dtype)
    expected = module(rows)
    (expected_gradient,) = torch.autograd.grad(expected, rows, gradient)
    norm = RmsNorm.of(module)
    actual, inverse = norm.forward(rows.detach())
    of_rows = norm.backward(gradient, rows.detach(), inverse)
    assert (actual.dtype, of_rows.dtype, inverse.dtype) == (dtype, dtype, torch.float32)
    # In bfloat16 a product may round to a neighbour or, after a sum, to the next but one.
    rtol, atol = (1e-5, 1e-6) if dtype == torch.float32 else (2.0**-6, 2.0**-8)
    torch.testing.assert_close(actual, expected.detach(), rtol=rtol, atol=atol)
    torch.testing.assert_close(of_rows, expected_gradient, rtol=rtol, atol=atol)


def test_a_small_row_by_hand() -> None:
    # The mean square is (9 + 16) / 2 = 12.5, and with epsilon 16: r = 1 / 4.
    norm = RmsNorm(torch.tensor([2.0, 1.0]), 3.5)
    actual, inverse = norm.forward(torch.tensor([[3.0, 4.0]]))
    assert actual.tolist() == [[1.5, 1.0]]
    assert inverse.tolist() == [[0.25]]
    # Weighted gradient (2, 0); its mean product with the row is 3, times r^2 3 / 16.
    of_rows = norm.backward(torch.tensor([[1.0, 0.0]]), torch.tensor([[3.0, 4.0]]), inverse)
    assert of_rows.tolist() == [[(2 - 9 / 16) / 4, -12 / 16 / 4]]


def test_a_row_of_zeros_stays_one() -> None:
    norm = RmsNorm(torch.ones(3), 1e-6)
    actual, inverse = norm.forward(torch.zeros(1, 3))
    assert actual.tolist() == [[0, 0, 0]]
    assert norm.backward(torch.ones(1, 3), torch.zeros(1, 3), inverse).tolist() == [
        pytest.approx([1000, 1000, 1000])
    ]
