"""Attention within groups: a prompt attends to itself, a branch to its prompt and to itself."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from pkgllm.lm.projection import linear, outer


@dataclass(frozen=True, slots=True)
class GroupSpan:
    """Where a group lies among the rows of a pass: its prompt, then its branches."""

    start: int
    prompt_end: int
    branch_ends: tuple[int, ...]
    """Where each branch ends; it starts where the one before it ends. Branches may be empty."""

    @property
    def end(self) -> int:
        """Where the group ends."""
        return self.branch_ends[-1] if self.branch_ends else self.prompt_end


class GroupAttention(Protocol):
    """Which rows of a pass attend to which, the same in every layer."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Any]:
        """Return the attention output, ``(rows, heads, head_dim)``, and what backward needs.

        Args:
            q: Shape ``(rows, heads, head_dim)``, scaled: its products with keys are the scores.
            k: Shape ``(rows, key_value_heads, head_dim)``.
            v: As ``k``.
        """
        ...

    def backward(self, d_y: Tensor, tape: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients of ``q``, ``k`` and ``v`` from that of the attention output."""
        ...


@dataclass(frozen=True, slots=True)
class _Block:
    """Queries ``start:end``; keys are ``prefix_start:prefix_end`` and, by mask, ``start:end``."""

    prefix_start: int
    prefix_end: int
    start: int
    end: int
    mask: Tensor
    """0 or minus infinity. Shape ``(queries * heads per key, queries)``."""

    def keys(self, rows: Tensor) -> Tensor:
        """Return the rows of the visible keys; shape ``(keys, head_dim)``."""
        if self.prefix_end == self.start:
            return rows[self.prefix_start : self.end]
        return torch.cat((rows[self.prefix_start : self.prefix_end], rows[self.start : self.end]))

    def add_to_keys(self, total: Tensor, gradient: Tensor) -> None:
        """Add gradients of what :meth:`keys` returned to those of all rows."""
        num_prefix = self.prefix_end - self.prefix_start
        total[self.prefix_start : self.prefix_end] += gradient[:num_prefix]
        total[self.start : self.end] += gradient[num_prefix:]


@dataclass(frozen=True, slots=True)
class _BlockedTape:
    q: Tensor
    """Shape ``(key_value_heads, rows * heads per key, head_dim)``."""
    k: Tensor
    """Shape ``(key_value_heads, rows, head_dim)``."""
    v: Tensor
    weights: list[Tensor]
    """The attention weights of each key head and block."""


class BlockedAttention:
    """Group after group, block after block of queries, with all scores of a block at hand.

    On a CPU it is twice as fast as torch's own operator: scores that the mask hides are computed
    inside a block only, and the attention weights are kept for the backward pass.

    Args:
        groups: Where the groups lie; the output of rows outside of them (padding) is zero.
        heads_per_key: Query heads that share one key head.
        device: Of the rows.
        block: Queries whose scores exist at once, for each of the heads that share keys. A block of
            a prompt skips the keys behind it; branches share a block, and none is cut in two.
            Smaller blocks skip more keys and need more calls.
    """

    def __init__(
        self,
        groups: Sequence[GroupSpan],
        *,
        heads_per_key: int,
        device: torch.device,
        block: int = 256,
    ) -> None:
        self._heads_per_key = heads_per_key
        self._blocks = [
            part for group in groups for part in _blocks(group, block, heads_per_key, device)
        ]

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, _BlockedTape]:
        """See :class:`GroupAttention`."""
        rows, heads, head_dim = q.shape
        each = self._heads_per_key
        # (key_value_heads, rows * each, head_dim), and (key_value_heads, rows, head_dim) twice
        q, k, v = self._by_key(q), k.transpose(0, 1).contiguous(), v.transpose(0, 1).contiguous()
        y = torch.zeros_like(q)
        weights = []
        for head in range(heads // each):
            for block in self._blocks:
                own = slice(block.start * each, block.end * each)
                scores = linear(q[head, own], block.keys(k[head]))
                scores[:, block.prefix_end - block.prefix_start :] += block.mask
                weights.append(scores.softmax(-1))
                y[head, own] = linear(weights[-1], block.keys(v[head]).t())
        by_row = y.view(heads // each, rows, each, head_dim).transpose(0, 1)
        return by_row.reshape(rows, heads, head_dim), _BlockedTape(q, k, v, weights)

    def backward(self, d_y: Tensor, tape: _BlockedTape) -> tuple[Tensor, Tensor, Tensor]:
        """See :class:`GroupAttention`."""
        rows, heads, head_dim = d_y.shape
        each = self._heads_per_key
        d_y = self._by_key(d_y)
        d_q, d_k, d_v = torch.zeros_like(d_y), torch.zeros_like(tape.k), torch.zeros_like(tape.v)
        all_weights = iter(tape.weights)
        for head in range(heads // each):
            for block in self._blocks:
                own = slice(block.start * each, block.end * each)
                weights, d_own = next(all_weights), d_y[head, own]
                block.add_to_keys(d_v[head], outer(weights, d_own))
                d_weights = linear(d_own, block.keys(tape.v[head]))
                d_scores = torch._softmax_backward_data(d_weights, weights, -1, weights.dtype)
                d_q[head, own] = linear(d_scores, block.keys(tape.k[head]).t())
                block.add_to_keys(d_k[head], outer(d_scores, tape.q[head, own]))
        by_row = d_q.view(heads // each, rows, each, head_dim).transpose(0, 1)
        return (
            by_row.reshape(rows, heads, head_dim),
            d_k.transpose(0, 1).contiguous(),
            d_v.transpose(0, 1).contiguous(),
        )

    def _by_key(self, rows: Tensor) -> Tensor:
        split = rows.view(len(rows), -1, self._heads_per_key, rows.shape[-1])
        return split.transpose(0, 1).reshape(split.shape[1], -1, rows.shape[-1])


def _blocks(group: GroupSpan, size: int, each: int, device: torch.device) -> Iterator[_Block]:
    for start in range(group.start, group.prompt_end, size):
        end = min(start + size, group.prompt_end)
        causal = torch.ones(end - start, end - start, dtype=torch.bool).tril()
        yield _Block(group.start, start, start, end, _additive(causal, each, device))
    start = group.prompt_end
    ends: list[int] = []
    for end in group.branch_ends:
        if ends and end - start > size:
            yield _branch_block(group, start, ends, each, device)
            start, ends = ends[-1], []
        if end > start:
            ends.append(end)
    if ends:
        yield _branch_block(group, start, ends, each, device)


def _branch_block(
    group: GroupSpan, start: int, ends: Sequence[int], each: int, device: torch.device
) -> _Block:
    lengths = torch.tensor(ends) - torch.tensor([start, *ends[:-1]])
    branch = torch.repeat_interleave(torch.arange(len(ends)), lengths)
    same = (branch[:, None] == branch[None, :]).tril()
    return _Block(group.start, group.prompt_end, start, ends[-1], _additive(same, each, device))


def _additive(visible: Tensor, each: int, device: torch.device) -> Tensor:
    mask = torch.zeros(visible.shape).masked_fill_(~visible, float("-inf"))
    return mask.repeat_interleave(each, dim=0).to(device)
