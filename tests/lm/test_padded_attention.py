import importlib

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from helpers.tiny_lanes import SpanShape, assert_attends_by_the_book, random, span_shapes, spans_of
from pkgllm.lm.lanes.padded_attention import Kernel, PaddedAttention

CPU = torch.device("cpu")


@pytest.mark.slow
@settings(deadline=None, max_examples=80)
@given(span_shapes, st.integers(1, 2), st.integers(1, 3))
@example([(1, (), 0)], 1, 1)
@example([(1, (0, 0, 3), 2), (9, (5, 1), 1)], 2, 2)
def test_any_groups_equal_dense_attention(
    shapes: list[SpanShape], key_heads: int, heads_per_key: int
) -> None:
    groups, num_rows = spans_of(shapes)
    attention = PaddedAttention(groups, num_rows=num_rows, device=CPU)
    assert_attends_by_the_book(
        attention, groups, num_rows, key_heads=key_heads, heads_per_key=heads_per_key
    )


@pytest.fixture
def flex_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch refuses the backward pass of flex attention on a CPU, where it would be slow."""
    # The package has a function of the module's name.
    module = importlib.import_module("torch.nn.attention.flex_attention")
    monkeypatch.setattr(module, "_validate_device", lambda *_: None)


@pytest.mark.slow
@pytest.mark.usefixtures("flex_on_a_cpu")
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@settings(
    deadline=None, max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(span_shapes)
def test_any_groups_by_flex_equal_dense_attention(shapes: list[SpanShape]) -> None:
    groups, num_rows = spans_of(shapes)
    attention = PaddedAttention(groups, num_rows=num_rows, device=CPU, kernel="flex")
    assert_attends_by_the_book(attention, groups, num_rows, key_heads=2, heads_per_key=2)


@pytest.mark.slow
@pytest.mark.usefixtures("flex_on_a_cpu")
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_over_several_blocks_of_its_mask() -> None:
    # Its blocks have 128 rows; the second group fills none of the last ones.
    groups, num_rows = spans_of([(200, (40, 0, 60), 1), (1, (3,), 3)])
    attention = PaddedAttention(groups, num_rows=num_rows, device=CPU, kernel="flex")
    assert_attends_by_the_book(attention, groups, num_rows, key_heads=1, heads_per_key=2)


@pytest.mark.slow
@pytest.mark.parametrize("kernel", ["sdpa", "flex"])
@pytest.mark.usefixtures("flex_on_a_cpu")
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_no_graph_is_asked_for_outside(kernel: Kernel) -> None:
    groups, num_rows = spans_of([(4, (2, 3), 1)])
    attention = PaddedAttention(groups, num_rows=num_rows, device=CPU, kernel=kernel)
    query, key = random(num_rows, 2, 8), random(num_rows, 1, 8, seed=1)
    with torch.no_grad():
        seen, tape = attention.forward(query, key, key)
        gradients = attention.backward(torch.ones_like(seen), tape)
    assert not any(actual.requires_grad for actual in (seen, query, key, *gradients))
    assert gradients[2].any()
