import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from helpers.tiny_lanes import SpanShape, assert_attends_by_the_book, random, span_shapes, spans_of
from pkgllm.lm.lanes.group_attention import BlockedAttention, GroupSpan

CPU = torch.device("cpu")


@pytest.mark.slow
@settings(deadline=None, max_examples=120)
@given(span_shapes, st.integers(1, 2), st.integers(1, 3), st.sampled_from([1, 2, 3, 4, 256]))
@example([(1, (), 0)], 1, 1, 256)
@example([(1, (0, 0, 3), 2)], 1, 2, 2)
@example([(2, (5, 1, 0, 4), 0), (9, (0,), 1)], 2, 1, 3)
def test_any_groups_in_any_blocks_equal_dense_attention(
    shapes: list[SpanShape], key_heads: int, heads_per_key: int, block: int
) -> None:
    groups, num_rows = spans_of(shapes)
    attention = BlockedAttention(groups, heads_per_key=heads_per_key, device=CPU, block=block)
    assert_attends_by_the_book(
        attention, groups, num_rows, key_heads=key_heads, heads_per_key=heads_per_key
    )


def test_a_group_longer_than_a_block_as_it_comes() -> None:
    groups, num_rows = spans_of([(300, (200, 100, 270, 3), 1), (257, (), 0)])
    attention = BlockedAttention(groups, heads_per_key=2, device=CPU)
    assert_attends_by_the_book(attention, groups, num_rows, key_heads=1, heads_per_key=2)


def test_a_small_group_by_hand() -> None:
    # All scores are 0, so that a row gets the mean of the values that it sees.
    groups = [GroupSpan(1, 3, (4, 4, 6))]
    value = torch.tensor([7.0, 1, 3, 8, 5, 6])[:, None, None]
    attention = BlockedAttention(groups, heads_per_key=1, device=CPU, block=2)
    seen, tape = attention.forward(torch.zeros_like(value), torch.zeros_like(value), value)
    assert seen.flatten().tolist() == [0, 1, 2, 4, 3, 3.75]
    # Row 3 is seen by itself alone, as one of three.
    gradient = torch.zeros_like(value)
    gradient[3] = 9
    _, _, of_value = attention.backward(gradient, tape)
    assert of_value.flatten().tolist() == pytest.approx([0, 3, 3, 3, 0, 0])


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        # Prompt: 8 queries by 8 keys. Branches: 7 queries by 8 + 7 keys.
        (256, 8 * 8 + 7 * 15),
        # Prompt: 4 by 4, 4 by 8. Branches of 2 and 1 together: 3 by 11. That of 4: 4 by 12.
        (4, 4 * 4 + 4 * 8 + 3 * 11 + 4 * 12),
        # Prompt: 1 by 1 to 1 by 8. Each branch by itself: 2 by 10, 1 by 9, 4 by 12.
        (1, 36 + 2 * 10 + 9 + 4 * 12),
    ],
)
def test_a_block_spares_the_keys_behind_it(block: int, expected: int) -> None:
    groups, num_rows = spans_of([(8, (2, 1, 4), 0)])
    attention = BlockedAttention(groups, heads_per_key=1, device=CPU, block=block)
    rows = random(num_rows, 1, 4)
    _, tape = attention.forward(rows, rows, rows)
    assert sum(weights.numel() for weights in tape.weights) == expected


def test_heads_keep_their_type() -> None:
    groups, num_rows = spans_of([(4, (2, 3), 1)])
    attention = BlockedAttention(groups, heads_per_key=2, device=CPU, block=2)
    query, key = random(num_rows, 2, 8), random(num_rows, 1, 8, seed=1)
    exact, exact_tape = attention.forward(query, key, key)
    rough, rough_tape = attention.forward(query.bfloat16(), key.bfloat16(), key.bfloat16())
    pairs = zip(
        (rough, *attention.backward(query.bfloat16(), rough_tape)),
        (exact, *attention.backward(query, exact_tape)),
        strict=True,
    )
    for one, other in pairs:
        assert one.dtype == torch.bfloat16
        torch.testing.assert_close(one.float(), other, rtol=0.1, atol=0.1)
