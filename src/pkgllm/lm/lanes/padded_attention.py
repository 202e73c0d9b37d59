"""Attention of all groups of a pass at once, padded to the longest, for a GPU."""

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
class _PaddedTape:
    q: Tensor
    k: Tensor
    v: Tensor
    y: Tensor
    """With the autograd graph of the attention operator alone."""


class PaddedAttention:
    """Few calls of torch's own operator for all groups; those in a call are of similar length.

    Args:
        groups: Where the groups lie; the output of rows outside of them (padding) is zero.
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

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, list[_PaddedTape]]:
        """See :class:`~pkgllm.lm.lanes.group_attention.GroupAttention`."""
        q, k, v = (_with_zero_row(rows) for rows in (q, k, v))
        y, tapes = torch.zeros_like(q), []
        for part in self._parts:
            tapes.append(part.forward(q, k, v))
            part.write(y, tapes[-1].y.detach())
        return y[: self._num_rows], tapes

    def backward(self, d_y: Tensor, tape: list[_PaddedTape]) -> tuple[Tensor, Tensor, Tensor]:
        """See :class:`~pkgllm.lm.lanes.group_attention.GroupAttention`."""
        d_y = _with_zero_row(d_y)
        d_q = torch.zeros_like(d_y)
        d_k, d_v = (d_y.new_zeros(len(d_y), tape[0].k.shape[1], d_y.shape[2]) for _ in "kv")
        for part, of_part in zip(self._parts, tape, strict=True):
            gradients = torch.autograd.grad(
                of_part.y, (of_part.q, of_part.k, of_part.v), part.read(d_y)
            )
            for total, gradient in zip((d_q, d_k, d_v), gradients, strict=True):
                part.write(total, gradient)
        rows = slice(self._num_rows)
        return d_q[rows], d_k[rows], d_v[rows]


class _Part:
    """Groups of one call, padded to the longest of them."""

    def __init__(
        self,
        groups: Sequence[GroupSpan],
        *,
        num_rows: int,
        device: torch.device,
        kernel: Kernel,
    ) -> None:
        width = max(group.end - group.start for group in groups)
        # Padding is read from an extra row of zeros, which no token attends to.
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

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> _PaddedTape:
        q, k, v = (self.read(rows).requires_grad_() for rows in (q, k, v))
        with torch.enable_grad():
            return _PaddedTape(q, k, v, self._attend(q, k, v))

    def read(self, rows: Tensor) -> Tensor:
        """Return rows as ``(groups, heads, width, head_dim)``."""
        return rows[self._index].transpose(1, 2)

    def write(self, rows: Tensor, part: Tensor) -> None:
        """Write values of the groups' tokens to their rows."""
        rows[self._index] = part.transpose(1, 2)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if self._kernel == "flex":
            attend = _compiled() if q.is_cuda else cast(Attend, flex_attention)
            return attend(q, k, v, block_mask=self._mask, scale=1.0, enable_gqa=True)
        return F.scaled_dot_product_attention(
            q, k, v, attn_mask=cast(Tensor, self._mask), scale=1.0, enable_gqa=True
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


def _with_zero_row(rows: Tensor) -> Tensor:
    """Append a row of zeros, from which padding is read."""
    return torch.cat((rows, rows.new_zeros(1, *rows.shape[1:])))


def _dense_mask(visible: Visible, groups: int, width: int, device: torch.device) -> Tensor:
    at, group = torch.arange(width, device=device), torch.arange(groups, device=device)
    mask = visible(group[:, None, None, None], None, at[:, None], at[None, :])
    # The softmax of a row without True would be NaN.
    return mask | (at[:, None] == at[None, :])


def _block_mask(visible: Visible, groups: int, width: int, device: torch.device) -> BlockMask:
    return create_block_mask(visible, groups, None, width, width, device=str(device))


def _visible(branch: Tensor) -> Visible:
    """Return which tokens of a group a token attends to, in the form of flex attention."""

    # flex attention counts the arguments, so a bound method does not work.
    def visible(group: Tensor, head: Any, query: Tensor, key: Tensor) -> Tensor:
        of_key = branch[group, key]
        same_or_prompt = (of_key == 0) | (of_key == branch[group, query])
        return (query >= key) & (of_key >= 0) & same_or_prompt

    return visible


@cache
def _compiled() -> Attend:
    return cast(Attend, torch.compile(flex_attention, dynamic=True))
