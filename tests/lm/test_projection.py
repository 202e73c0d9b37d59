from typing import Any, Literal

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn

from pkgllm.lm import projection
from pkgllm.lm.projection import Projection, linear, linear_plus, outer

Factors = tuple[Tensor, Tensor, float]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def adapted(layer: nn.Linear, lora_rank: int = 2) -> tuple[nn.Module, Tensor, Tensor]:
    """Wrap a layer as PEFT does; return it and its two factors, random and in float32."""
    config = LoraConfig(r=lora_rank, lora_alpha=3 * lora_rank, target_modules=["0"])
    holder = nn.Sequential(layer)
    inject_adapter_in_model(config, holder, "own")
    wrapped: Any = holder[0]
    generator = torch.Generator().manual_seed(7)
    factors = [wrapped.lora_A["own"].float().weight, wrapped.lora_B["own"].float().weight]
    for factor in factors:
        nn.init.normal_(factor, generator=generator)
    return wrapped, factors[0], factors[1]


@pytest.fixture(params=["onednn", "plain"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways there are: a CPU takes the first where torch has it, a GPU the second."""
    if request.param == "plain":
        monkeypatch.setattr(projection, "_ONEDNN", None)
    return str(request.param)


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("activation", ["none", "swish"])
@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("num_rows", [0, 1, 33])
@torch.inference_mode()
def test_both_ways_equal_the_layer(
    activation: Literal["none", "swish"], has_bias: bool, num_rows: int
) -> None:
    rows, weight, other = random(num_rows, 24), random(40, 24, seed=1), random(num_rows, 40, seed=2)
    bias = random(40, seed=3) if has_bias else None
    mapped = F.linear(rows, weight, bias)
    expected = F.silu(mapped) if activation == "swish" else mapped
    torch.testing.assert_close(linear(rows, weight, bias, activation), expected)
    ours = Projection(weight, bias, None)
    torch.testing.assert_close(ours(rows, activation), expected)
    torch.testing.assert_close(ours.times(rows, other), mapped * other)
    torch.testing.assert_close(ours.plus(rows, other), mapped + other)


def laid_out(numbers: Tensor, layout: str) -> Tensor:
    """Return the same numbers as they come from other places in memory."""
    if layout == "part of wider rows":
        return torch.cat((numbers, numbers, numbers), dim=1)[
            :, numbers.shape[1] : 2 * numbers.shape[1]
        ]
    if layout == "every second row":
        return numbers.repeat_interleave(2, dim=0)[::2]
    return numbers.t().contiguous().t() if layout == "by columns" else numbers


layouts = st.sampled_from(["as they are", "part of wider rows", "every second row", "by columns"])
sizes = st.tuples(st.integers(0, 6), st.integers(1, 6), st.integers(1, 6))


@pytest.mark.parametrize("way", ["onednn", "plain"])
@settings(deadline=None, max_examples=60)
@given(sizes, st.tuples(layouts, layouts, layouts))
@torch.inference_mode()
def test_products_of_any_layout(
    way: str, size: tuple[int, int, int], places: tuple[str, str, str]
) -> None:
    num_rows, num_in, num_out = size
    rows, other = random(num_rows, num_in), random(num_rows, num_out, seed=2)
    weight = random(num_out, num_in, seed=1)
    mapped = torch.einsum("ri,oi->ro", rows, weight)
    by_row = torch.einsum("ri,ro->rio", rows, other)
    rows, weight, other = (
        laid_out(part, place) for part, place in zip((rows, weight, other), places, strict=True)
    )
    before = [part.clone() for part in (rows, weight, other)]
    with pytest.MonkeyPatch.context() as patch:
        if way == "plain":
            patch.setattr(projection, "_ONEDNN", None)
        torch.testing.assert_close(linear(rows, weight), mapped)
        torch.testing.assert_close(linear_plus(rows, weight, other), mapped + other)
        # Of no rows, zeros: oneDNN by itself refuses to sum over nothing.
        torch.testing.assert_close(outer(rows, other), by_row.sum(0))
    assert all(
        torch.equal(one, kept) for one, kept in zip((rows, weight, other), before, strict=True)
    )


@torch.inference_mode()
def test_onednn_is_left_aside_where_it_would_round_otherwise() -> None:
    rows, weight = random(5, 24).bfloat16(), random(40, 24, seed=1).bfloat16()
    assert torch.equal(linear(rows, weight), F.linear(rows, weight))
    assert torch.equal(linear(rows, weight, None, "swish"), F.silu(F.linear(rows, weight)))
    other = random(5, 40, seed=2).bfloat16()
    assert torch.equal(linear_plus(rows, weight, other), torch.addmm(other, rows, weight.t()))
    assert torch.equal(outer(rows, other), F.linear(rows.t(), other.t()))


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("has_bias", [False, True])
@torch.inference_mode()
def test_an_adapter_is_taken_into_a_float32_layer(has_bias: bool) -> None:
    layer = nn.Linear(24, 40, bias=has_bias)
    before = layer.weight.clone()
    wrapped, first, second = adapted(layer)
    rows, other = random(6, 24), random(6, 40, seed=2)
    ours = Projection.of(wrapped, with_adapter=True)
    assert ours.adapter is None
    torch.testing.assert_close(ours(rows), wrapped(rows), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.plus(rows, other), wrapped(rows) + other, rtol=1e-5, atol=1e-5)
    # By hand: W + (lora_alpha / lora_rank) B A, with 6 / 2 = 3.
    expected = before + 3 * second @ first
    torch.testing.assert_close(ours.weight, expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(layer.weight, before)
    without = Projection.of(wrapped, with_adapter=False)
    assert without.weight is layer.weight
    assert torch.equal(Projection.of(layer, with_adapter=True)(rows), without(rows))


@torch.inference_mode()
def test_an_adapter_below_the_resolution_of_bfloat16_counts() -> None:
    # Rows of ones cancel in the base layer, and beside its ones 3 * 2**-11 is rounded off.
    layer = nn.Linear(4, 2, bias=False)
    layer.weight.copy_(torch.tensor([[1.0, -1.0, 1.0, -1.0], [1.0, 1.0, -1.0, -1.0]]))
    layer.bfloat16()
    wrapped, first, second = adapted(layer, lora_rank=1)
    first.fill_(2.0**-6)
    second.copy_(torch.tensor([[2.0**-5], [-(2.0**-5)]]))
    assert torch.equal((layer.weight + 3 * second @ first).bfloat16(), layer.weight)
    rows = torch.ones(1, 4, dtype=torch.bfloat16)
    expected = [12 * 2.0**-11, -12 * 2.0**-11]
    ours = Projection.of(wrapped, with_adapter=True)
    assert ours.adapter is not None
    assert ours.weight is layer.weight
    assert ours(rows).tolist() == [expected]
    assert ours(rows).dtype == torch.bfloat16
    assert ours.plus(rows, torch.zeros(1, 2, dtype=torch.bfloat16)).tolist() == [expected]
    twice = torch.full((1, 2), 2, dtype=torch.bfloat16)
    assert ours.times(rows, twice).tolist() == [[2 * value for value in expected]]
    assert torch.equal(ours(rows, "swish"), F.silu(ours(rows)))
    joined = Projection.joined([Projection.of(layer, with_adapter=True), ours])
    assert joined(rows).tolist() == [[0.0, 0.0, *expected]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.tuples(st.integers(1, 5), st.integers(0, 3)), min_size=1, max_size=4),
    st.booleans(),
)
@torch.inference_mode()
def test_joined_parts_stand_side_by_side(
    dtype: torch.dtype, parts: list[tuple[int, int]], has_bias: bool
) -> None:
    made = []
    for place, (width, lora_rank) in enumerate(parts):
        adapter: Factors | None = None
        if lora_rank:
            first, second = random(lora_rank, 6, seed=place), random(width, lora_rank, seed=place)
            adapter = (first, second, 0.5 + place)
        bias = random(width, seed=place).to(dtype) if has_bias else None
        made.append(Projection(random(width, 6, seed=9 + place).to(dtype), bias, adapter))
    rows = random(3, 6, seed=99).to(dtype)
    joined = Projection.joined(made)
    assert joined.weight.dtype == dtype
    assert (joined.adapter is None) == all(lora_rank == 0 for _, lora_rank in parts)
    # In bfloat16 a product may round to the neighbour; 2**-7 is one step.
    rtol, atol = (1e-5, 1e-5) if dtype == torch.float32 else (2.0**-7, 2.0**-5)
    expected = torch.cat([part(rows) for part in made], dim=-1)
    torch.testing.assert_close(joined(rows), expected, rtol=rtol, atol=atol)


def test_parts_of_which_some_have_a_bias_are_refused() -> None:
    with_bias, without = (
        Projection(random(2, 3), random(2), None),
        Projection(random(2, 3), None, None),
    )
    with pytest.raises(ValueError, match="all parts or none must have a bias, got 1 that have one"):
        Projection.joined([with_bias, without, without])
