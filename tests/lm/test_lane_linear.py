from itertools import accumulate

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from helpers.tiny_lanes import random
from pkgllm.lm.lanes.linear import FrozenLinear, LaneLinear
from pkgllm.lm.lanes.lora_factors import FactorLayout, StackedFactors
from pkgllm.lm.lanes.stack import Lanes

NUM_IN, LORA_RANK, SCALE = 5, 2, 1.7
LayerShape = tuple[int, bool, bool]
"""Width of the result, whether it has a bias, and whether it has factors."""
layer_shapes = st.lists(
    st.tuples(st.integers(1, 6), st.booleans(), st.booleans()), min_size=1, max_size=3
)
row_counts = st.lists(st.integers(0, 4), min_size=1, max_size=3)


def make_layers(shapes: list[LayerShape], num_lanes: int) -> tuple[LaneLinear, StackedFactors]:
    """Return layers, and factors among which there are those of other layers too."""
    names = [str(at) for at, (_, _, adapted) in enumerate(shapes) if adapted]
    layout = FactorLayout(
        [
            ("before", 3, 4),
            *((name, NUM_IN, shapes[int(name)][0]) for name in names),
            ("behind", 2, 3),
        ],
        lora_rank=LORA_RANK,
    )
    layers = tuple(
        FrozenLinear(
            random(num_out, NUM_IN, seed=at),
            random(num_out, seed=10 + at) if has_bias else None,
            layout.slots.get(str(at)),
        )
        for at, (num_out, has_bias, _) in enumerate(shapes)
    )
    values = random(num_lanes, layout.num_values, seed=20)
    gradients = torch.full_like(values, torch.nan)
    return LaneLinear(layers), StackedFactors(values, gradients, SCALE, torch.float32)


def by_the_book(
    linear: LaneLinear, rows: Tensor, of_row: Tensor, values: Tensor | None, plus: Tensor | None
) -> list[Tensor]:
    """Return ``x W^T + b + s (x A^T) B^T``, row by row, each with its own lane's factors."""
    outputs = []
    for layer in linear.layers:
        result = rows @ layer.weight.double().t()
        if layer.bias is not None:
            result = result + layer.bias.double()
        if layer.slot is not None and values is not None:
            slot = layer.slot
            lora_a = values[:, slot.start_a : slot.end_a].view(-1, LORA_RANK, NUM_IN)
            lora_b = values[:, slot.start_b : slot.end_b]
            lora_b = lora_b.view(-1, slot.out_features, LORA_RANK)
            low = torch.einsum("ri,rki->rk", rows, lora_a[of_row])
            result = result + SCALE * torch.einsum("rk,rok->ro", low, lora_b[of_row])
        outputs.append(result)
    if plus is not None:
        outputs[0] = outputs[0] + plus
    return outputs


def assert_close(actual: Tensor | None, expected: Tensor) -> None:
    assert actual is not None
    torch.testing.assert_close(actual.double(), expected.detach(), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@settings(deadline=None, max_examples=80)
@given(layer_shapes, row_counts, st.booleans(), st.booleans(), st.booleans(), st.booleans())
def test_results_and_gradients_equal_the_formula_by_autograd(
    shapes: list[LayerShape],
    counts: list[int],
    batched: bool,
    shared: bool,
    has_plus: bool,
    trains_lora_a: bool,
) -> None:
    if batched:
        counts = [counts[0]] * len(counts)
    lanes = Lanes([0, *accumulate(counts)], batched=batched)
    of_row = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    linear, own = make_layers(shapes, len(counts))
    values = own.values[:1].expand(len(counts), -1) if shared else own.values
    factors = StackedFactors(values, own.gradients, SCALE, torch.float32)
    rows = random(len(of_row), NUM_IN, seed=30)
    plus = random(len(of_row), shapes[0][0], seed=31) if has_plus else None

    exact, exact_values = rows.double().requires_grad_(), values.double().requires_grad_()
    expected = by_the_book(
        linear, exact, of_row, exact_values, None if plus is None else plus.double()
    )
    gradients = [random(len(of_row), shape[0], seed=40 + at) for at, shape in enumerate(shapes)]
    expected_rows, expected_values = torch.autograd.grad(
        expected, (exact, exact_values), [part.double() for part in gradients], allow_unused=True
    )

    outputs, low = linear.forward(rows, lanes, factors, plus=plus)
    for output, other in zip(outputs, expected, strict=True):
        assert_close(output, other)
    assert (low is None) == (not linear.slots)
    before = [part.clone() for part in gradients]
    d_rows = linear.backward(gradients, rows, low, lanes, factors, trains_lora_a=trains_lora_a)
    assert_close(d_rows, expected_rows)
    assert all(torch.equal(*pair) for pair in zip(gradients, before, strict=True))

    assert factors.gradients is not None
    written = torch.zeros_like(factors.gradients, dtype=torch.bool)
    for slot in linear.slots:
        written[:, slot.start_b : slot.end_b] = True
        written[:, slot.start_a : slot.end_a] = trains_lora_a
    # What belongs to others is left alone.
    assert torch.equal(~factors.gradients.isnan(), written)
    if linear.slots:
        assert_close(factors.gradients[written], expected_values[written])


@settings(deadline=None, max_examples=40)
@given(layer_shapes, st.booleans())
def test_without_factors_there_is_the_base_alone(shapes: list[LayerShape], has_plus: bool) -> None:
    linear, _ = make_layers(shapes, 1)
    rows = random(4, NUM_IN)
    plus = random(4, shapes[0][0], seed=1) if has_plus else None
    outputs, low = linear.forward(rows, Lanes([0, 4]), None, plus=plus)
    assert low is None
    expected = by_the_book(
        linear, rows.double(), torch.zeros(4), None, None if plus is None else plus.double()
    )
    for output, other in zip(outputs, expected, strict=True):
        assert_close(output, other)


@pytest.mark.parametrize("adapted", [False, True])
def test_the_gradient_of_the_rows_can_be_left_out(adapted: bool) -> None:
    linear, factors = make_layers([(3, True, adapted)], 1)
    assert factors.gradients is not None
    rows, gradient, lanes = random(4, NUM_IN), random(4, 3, seed=1), Lanes([0, 4])
    _, low = linear.forward(rows, lanes, factors)
    linear.backward([gradient], rows, low, lanes, factors)
    expected = factors.gradients.clone()
    factors.gradients.fill_(torch.nan)
    d_rows = linear.backward([gradient], rows, low, lanes, factors, wants_rows=False)
    assert d_rows is None
    torch.testing.assert_close(factors.gradients, expected, rtol=0, atol=0, equal_nan=True)
