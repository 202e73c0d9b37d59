"""Groups of random tokens in lanes, and by the book what attention within groups must come to."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from hypothesis import strategies as st
from torch import Tensor

from helpers.tiny_decoders import VOCABULARY
from pkgllm.lm.lanes.decoder import LaneBatch
from pkgllm.lm.lanes.group_attention import GroupAttention, GroupSpan
from pkgllm.lm.lanes.stack import Lanes
from pkgllm.prompts.lane_packing import PackedLanes
from pkgllm.prompts.packing import Branches

GroupShape = tuple[int, tuple[int, ...]]
"""Tokens of a prompt, and of each of its completions."""
SpanShape = tuple[int, tuple[int, ...], int]
"""LaneBatch of a prompt, of each of its branches, and of the padding behind them."""

group_shapes = st.tuples(
    st.integers(1, 9), st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple)
)
lane_shapes = st.lists(st.lists(group_shapes, min_size=1, max_size=3), min_size=1, max_size=3)
span_shapes: st.SearchStrategy[list[SpanShape]] = st.lists(
    st.tuples(
        st.integers(1, 9),
        st.lists(st.integers(0, 5), max_size=5).map(tuple),
        st.integers(0, 2),
    ),
    min_size=1,
    max_size=3,
)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def random_lanes(shapes: Sequence[Sequence[GroupShape]], *, seed: int = 0) -> list[list[Branches]]:
    """Fill groups with tokens."""
    generator = torch.Generator().manual_seed(seed)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(VOCABULARY, (count,), generator=generator).tolist())

    return [
        [(tokens(prompt), [tokens(length) for length in lengths]) for prompt, lengths in lane]
        for lane in shapes
    ]


def rows_of(packed: PackedLanes, *, batched: bool = False) -> LaneBatch:
    """Turn what is packed into what a decoder reads."""
    return LaneBatch(
        torch.tensor(packed.input_ids),
        torch.tensor(packed.positions),
        Lanes(packed.bounds, batched=batched),
        torch.tensor(packed.sources),
        Lanes(packed.source_bounds, batched=batched),
        torch.tensor(packed.target_rows),
        torch.tensor(packed.target_ids),
    )


def spans_of(shapes: Sequence[SpanShape]) -> tuple[list[GroupSpan], int]:
    """Lay groups one behind the other; return them and the number of all rows."""
    groups, row = [], 0
    for prompt, branches, padding in shapes:
        ends = [row + prompt]
        for length in branches:
            ends.append(ends[-1] + length)
        groups.append(GroupSpan(row, ends[0], tuple(ends[1:])))
        row = ends[-1] + padding
    return groups, row


def visible(groups: Sequence[GroupSpan], num_rows: int) -> Tensor:
    """Which rows each row sees, by the definition. Shape ``(rows, rows)``, bool."""
    mask = torch.zeros(num_rows, num_rows, dtype=torch.bool)
    for group in groups:
        for row in range(group.start, group.prompt_end):
            mask[row, group.start : row + 1] = True
        for start, end in pairwise((group.prompt_end, *group.branch_ends)):
            for row in range(start, end):
                mask[row, group.start : group.prompt_end] = True
                mask[row, start : row + 1] = True
    return mask


def attend_by_the_book(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """Softmax attention over all rows at once; a row that sees nothing gets zeros."""
    each = query.shape[1] // key.shape[1]
    keys, values = (heads.repeat_interleave(each, dim=1) for heads in (key, value))
    seeing = mask.any(1)
    scores = torch.einsum("qhd,khd->hqk", query[seeing], keys)
    weights = scores.masked_fill(~mask[seeing], -torch.inf).softmax(-1)
    seen = torch.einsum("hqk,khd->qhd", weights, values)
    return torch.zeros_like(query).index_put((seeing,), seen)


def assert_attends_by_the_book(
    attention: GroupAttention,
    groups: Sequence[GroupSpan],
    num_rows: int,
    *,
    key_heads: int,
    heads_per_key: int,
    head_dim: int = 4,
) -> None:
    """Compare what is seen and the gradients with float64 and autograd.

    The padding that is looked past holds no numbers, so that a glance at it would show.
    """
    mask = visible(groups, num_rows)
    padding = ~mask.any(1)
    query, gradient = (
        random(num_rows, key_heads * heads_per_key, head_dim, seed=s) for s in (0, 1)
    )
    key, value = (random(num_rows, key_heads, head_dim, seed=seed) for seed in (2, 3))
    query *= 2
    exact = [rows.double().requires_grad_() for rows in (query, key, value)]
    expected = attend_by_the_book(exact[0], exact[1], exact[2], mask)
    expected_gradients = torch.autograd.grad(expected, exact, gradient.double())
    for rows in (query, key, value, gradient):
        rows[padding] = torch.nan
    found, tape = attention.forward(query, key, value)
    pairs = zip(
        (found, *attention.backward(gradient, tape)),
        (expected.detach(), *expected_gradients),
        strict=True,
    )
    for one, other in pairs:
        assert one.dtype == torch.float32
        assert one.shape == other.shape
        torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=1e-5)
        assert not one[padding].any()
