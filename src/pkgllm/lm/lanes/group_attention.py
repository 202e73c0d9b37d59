"""Attention within groups: a prompt sees itself causally, a branch sees the prompt and itself."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from pkgllm.lm.lanes.projection import linear, outer


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
    """How the rows of a pass look at each other, in every layer alike."""

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Any]:
        """Return what each row sees, and what :meth:`backward` needs.

        Args:
            query: Shape ``(rows, heads, head_dim)``, scaled: its products with keys are the scores.
            key: Shape ``(rows, key_value_heads, head_dim)``.
            value: As ``key``.

        Returns:
            Shape ``(rows, heads, head_dim)``.
        """
        ...

    def backward(self, gradient: Tensor, tape: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients of query, key and value from that of what was seen."""
        ...


@dataclass(frozen=True, slots=True)
class _Block:
    """Queries ``start:end`` that see the keys ``first:seen`` and, as ``mask`` has it, their own."""

    first: int
    seen: int
    start: int
    end: int
    mask: Tensor
    """0 or minus infinity. Shape ``(queries * heads per key, queries)``."""

    def keys(self, rows: Tensor) -> Tensor:
        """Return the rows that are looked at; shape ``(keys, head_dim)``."""
        if self.seen == self.start:
            return rows[self.first : self.end]
        return torch.cat((rows[self.first : self.seen], rows[self.start : self.end]))

    def add_to_keys(self, total: Tensor, found: Tensor) -> None:
        """Add gradients of what :meth:`keys` returned to those of all rows."""
        num_seen = self.seen - self.first
        total[self.first : self.seen] += found[:num_seen]
        total[self.start : self.end] += found[num_seen:]


@dataclass(frozen=True, slots=True)
class _Tape:
    query: Tensor
    """Shape ``(key_value_heads, rows * heads per key, head_dim)``."""
    key: Tensor
    """Shape ``(key_value_heads, rows, head_dim)``."""
    value: Tensor
    weights: list[Tensor]
    """The attention weights of each key head and block."""


class BlockedAttention:
    """Group after group, block after block of queries, with all scores of a block at hand.

    On a CPU twice as fast as torch's own operator: no score is computed that the mask would hide,
    but for those inside a block, and the weights are kept for the backward pass.

    Args:
        groups: Where the groups lie; rows outside of them (padding) see nothing and get zeros.
        heads_per_key: Query heads that share one key head.
        device: Of the rows.
        block: Queries whose scores exist at once, for each of the heads that share keys. A block of
            a prompt spares the keys behind it; branches share a block, and none is cut in two.
            Smaller ones spare more and cost more calls.
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
            found for group in groups for found in _blocks(group, block, heads_per_key, device)
        ]

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, _Tape]:
        """See :class:`GroupAttention`."""
        rows, heads, head_dim = query.shape
        each = self._heads_per_key
        by_key = self._by_key(query)
        keys, values = key.transpose(0, 1).contiguous(), value.transpose(0, 1).contiguous()
        seen = torch.zeros_like(by_key)
        weights = []
        for head in range(heads // each):
            for block in self._blocks:
                own = slice(block.start * each, block.end * each)
                scores = linear(by_key[head, own], block.keys(keys[head]))
                scores[:, block.seen - block.first :] += block.mask
                weights.append(scores.softmax(-1))
                seen[head, own] = linear(weights[-1], block.keys(values[head]).t())
        found = seen.view(heads // each, rows, each, head_dim).transpose(0, 1)
        return found.reshape(rows, heads, head_dim), _Tape(by_key, keys, values, weights)

    def backward(self, gradient: Tensor, tape: _Tape) -> tuple[Tensor, Tensor, Tensor]:
        """See :class:`GroupAttention`."""
        rows, heads, head_dim = gradient.shape
        each = self._heads_per_key
        by_key = self._by_key(gradient)
        query = torch.zeros_like(by_key)
        key, value = torch.zeros_like(tape.key), torch.zeros_like(tape.value)
        kept = iter(tape.weights)
        for head in range(heads // each):
            for block in self._blocks:
                own = slice(block.start * each, block.end * each)
                weights, seen = next(kept), by_key[head, own]
                block.add_to_keys(value[head], outer(weights, seen))
                of_weights = linear(seen, block.keys(tape.value[head]))
                of_scores = torch._softmax_backward_data(of_weights, weights, -1, weights.dtype)
                query[head, own] = linear(of_scores, block.keys(tape.key[head]).t())
                block.add_to_keys(key[head], outer(of_scores, tape.query[head, own]))
        found = query.view(heads // each, rows, each, head_dim).transpose(0, 1)
        return (
            found.reshape(rows, heads, head_dim),
            key.transpose(0, 1).contiguous(),
            value.transpose(0, 1).contiguous(),
        )

    def _by_key(self, rows: Tensor) -> Tensor:
        apart = rows.view(len(rows), -1, self._heads_per_key, rows.shape[-1])
        return apart.transpose(0, 1).reshape(apart.shape[1], -1, rows.shape[-1])


def _blocks(group: GroupSpan, size: int, each: int, device: torch.device) -> Iterator[_Block]:
    for start in range(group.start, group.prompt_end, size):
        end = min(start + size, group.prompt_end)
        causal = torch.ones(end - start, end - start, dtype=torch.bool).tril()
        yield _Block(group.start, start, start, end, _additive(causal, each, device))
    start = group.prompt_end
    waiting: list[int] = []
    for end in group.branch_ends:
        if waiting and end - start > size:
            yield _branch_block(group, start, waiting, each, device)
            start, waiting = waiting[-1], []
        if end > start:
            waiting.append(end)
    if waiting:
        yield _branch_block(group, start, waiting, each, device)


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
