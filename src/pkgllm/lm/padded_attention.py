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

from pkgllm.lm.group_attention import GroupSpan

Kernel = Literal["sdpa", "flex"]
Attend = Callable[..., Tensor]


@dataclass(frozen=True, slots=True)
class _Tape:
    query: Tensor
    key: Tensor
    value: Tensor
    seen: Tensor
    """With the graph of the operator alone."""


class PaddedAttention:
    """One call of torch's own operator for all groups.

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
        self._branch = branch.to(device)
        self._num_rows = num_rows
        self._kernel = kernel
        self._mask = self._block_mask() if kernel == "flex" else self._dense_mask()

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, _Tape]:
        """See :class:`~pkgllm.lm.group_attention.GroupAttention`."""
        query, key, value = (self._by_group(rows).requires_grad_() for rows in (query, key, value))
        with torch.enable_grad():
            seen = self._attend(query, key, value)
        return self._to_rows(seen.detach()), _Tape(query, key, value, seen)

    def backward(self, gradient: Tensor, tape: _Tape) -> tuple[Tensor, Tensor, Tensor]:
        """See :class:`~pkgllm.lm.group_attention.GroupAttention`."""
        found = torch.autograd.grad(
            tape.seen, (tape.query, tape.key, tape.value), self._by_group(gradient)
        )
        query, key, value = (self._to_rows(part) for part in found)
        return query, key, value

    def _attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        if self._kernel == "flex":
            attend = _compiled() if query.is_cuda else cast(Attend, flex_attention)
            return attend(query, key, value, block_mask=self._mask, scale=1.0, enable_gqa=True)
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask=cast(Tensor, self._mask), scale=1.0, enable_gqa=True
        )

    def _dense_mask(self) -> Tensor:
        at = torch.arange(self._index.shape[1], device=self._index.device)
        groups = torch.arange(len(self._index), device=self._index.device)
        visible = _visible(self._branch)(
            groups[:, None, None, None], None, at[:, None], at[None, :]
        )
        # A row of the mask with no True has no softmax.
        return visible | (at[:, None] == at[None, :])

    def _block_mask(self) -> BlockMask:
        groups, width = self._index.shape
        return create_block_mask(
            _visible(self._branch), groups, None, width, width, device=str(self._index.device)
        )

    def _by_group(self, rows: Tensor) -> Tensor:
        """Return rows as ``(groups, heads, width, head_dim)``."""
        filled = torch.cat((rows, rows.new_zeros(1, *rows.shape[1:])))
        return filled[self._index].transpose(1, 2)

    def _to_rows(self, parts: Tensor) -> Tensor:
        found = parts.new_zeros(self._num_rows + 1, parts.shape[1], parts.shape[3])
        found[self._index] = parts.transpose(1, 2)
        return found[: self._num_rows]


def _visible(branch: Tensor) -> Callable[[Tensor, Any, Tensor, Tensor], Tensor]:
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
