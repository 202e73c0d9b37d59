"""Attention of all groups of a pass at once, filled up to the longest: the way of a GPU."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from pkgllm.lm.lanes.group_attention import GroupSpan

Kernel = Literal["sdpa", "flex"]
Attend = Callable[..., Tensor]
Visible = Callable[[Tensor, Any, Tensor, Tensor], Tensor]


_LEAST_FULL = 0.75
"""Groups shorter than this share of the longest go into a call of their own."""


@dataclass(frozen=True, slots=True)
class _Tape:
    query: Tensor
    key: Tensor
    value: Tensor
    seen: Tensor
    """With the graph of the operator alone."""


class PaddedAttention:
    """Few calls of torch's own operator for all groups; those in a call are of similar length.

    Args:
        groups: Where the groups lie; rows outside of them (padding) see nothing and get zeros.
        num_rows: Of the pass, with padding.
        device: Of the rows.
        kernel: ``sdpa`` masks every score of a group; ``flex`` (He et al. 2024, arXiv:2412.05496)
            leaves out blocks that the mask hides, and is compiled for the first pass.
    """

    def __init__(
        self,
        groups: Sequence[GroupSpan],
        *,
        num_rows: int,
        device: torch.device,
        kernel: Kernel = "sdpa",
    ) -> None:
        self._num_rows = num_rows
        self._parts = [
            _Part(similar, num_rows=num_rows, device=device, kernel=kernel)
            for similar in _by_length(groups)
        ]

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, list[_Tape]]:
        """See :class:`~pkgllm.lm.lanes.group_attention.GroupAttention`."""
        query, key, value = (_with_nothing(rows) for rows in (query, key, value))
        seen, tapes = torch.zeros_like(query), []
        for part in self._parts:
            tapes.append(part.forward(query, key, value))
            part.write(seen, tapes[-1].seen.detach())
        return seen[: self._num_rows], tapes

    def backward(self, gradient: Tensor, tape: list[_Tape]) -> tuple[Tensor, Tensor, Tensor]:
        """See :class:`~pkgllm.lm.lanes.group_attention.GroupAttention`."""
        gradient = _with_nothing(gradient)
        num_keys = tape[0].key.shape[1]
        query = torch.zeros_like(gradient)
        key, value = (gradient.new_zeros(len(gradient), num_keys, gradient.shape[2]) for _ in "kv")
        for part, kept in zip(self._parts, tape, strict=True):
            found = torch.autograd.grad(
                kept.seen, (kept.query, kept.key, kept.value), part.read(gradient)
            )
            for total, of_part in zip((query, key, value), found, strict=True):
                part.write(total, of_part)
        rows = slice(self._num_rows)
        return query[rows], key[rows], value[rows]


class _Part:
    """Groups of one call, filled up to the longest of them."""

    def __init__(
        self,
        groups: Sequence[GroupSpan],
        *,
        num_rows: int,
        device: torch.device,
        kernel: Kernel,
    ) -> None:
        width = max(group.end - group.start for group in groups)
        # What is not there is read from a row of its own, which nobody looks at.
        index = torch.full((len(groups), width), num_rows, dtype=torch.int64)
        branch = torch.full((len(groups), width), -1, dtype=torch.int64)
        for number, group in enumerate(groups):
            length = group.end - group.start
            index[number, :length] = torch.arange(group.start, group.end)
            branch[number, : group.prompt_end - group.start] = 0
            for at, (start, end) in enumerate(pairwise((group.prompt_end, *group.branch_ends))):
                branch[number, start - group.start : end - group.start] = at + 1
        self._index = index.to(device)
        self._kernel = kernel
        visible = _visible(branch.to(device))
        self._mask = (
            _block_mask(visible, len(groups), width, device)
            if kernel == "flex"
            else _dense_mask(visible, len(groups), width, device)
        )

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> _Tape:
        query, key, value = (self.read(rows).requires_grad_() for rows in (query, key, value))
        with torch.enable_grad():
            return _Tape(query, key, value, self._attend(query, key, value))

    def read(self, rows: Tensor) -> Tensor:
        """Return rows as ``(groups, heads, width, head_dim)``."""
        return rows[self._index].transpose(1, 2)

    def write(self, rows: Tensor, part: Tensor) -> None:
        """Put what belongs to the groups' rows back to them."""
        rows[self._index] = part.transpose(1, 2)

    def _attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        if self._kernel == "flex":
            attend = _compiled() if query.is_cuda else cast(Attend, flex_attention)
            return attend(query, key, value, block_mask=self._mask, scale=1.0, enable_gqa=True)
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask=cast(Tensor, self._mask), scale=1.0, enable_gqa=True
        )


def _by_length(groups: Sequence[GroupSpan]) -> list[list[GroupSpan]]:
    parts: list[list[GroupSpan]] = []
    for group in sorted(groups, key=lambda group: group.start - group.end):
        longest = parts[-1][0].end - parts[-1][0].start if parts else 0
        if group.end - group.start >= _LEAST_FULL * longest and parts:
            parts[-1].append(group)
        else:
            parts.append([group])
    return parts


def _with_nothing(rows: Tensor) -> Tensor:
    """Add a row of zeros, for what is not there."""
    return torch.cat((rows, rows.new_zeros(1, *rows.shape[1:])))


def _dense_mask(visible: Visible, groups: int, width: int, device: torch.device) -> Tensor:
    at, group = torch.arange(width, device=device), torch.arange(groups, device=device)
    mask = visible(group[:, None, None, None], None, at[:, None], at[None, :])
    # A row of the mask with no True has no softmax.
    return mask | (at[:, None] == at[None, :])


def _block_mask(visible: Visible, groups: int, width: int, device: torch.device) -> BlockMask:
    return create_block_mask(visible, groups, None, width, width, device=str(device))


def _visible(branch: Tensor) -> Visible:
    """Return where a token of a group may look, in the form that flex attention asks for."""

    # Its arguments are counted, so that no method will do.
    def visible(group: Tensor, head: Any, query: Tensor, key: Tensor) -> Tensor:
        of_key = branch[group, key]
        same_or_prompt = (of_key == 0) | (of_key == branch[group, query])
        return (query >= key) & (of_key >= 0) & same_or_prompt

    return visible


@cache
def _compiled() -> Attend:
    return cast(Attend, torch.compile(flex_attention, dynamic=True))
