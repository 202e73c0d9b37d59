"""Lanes: several copies of an adapter, each with its own rows of one batch.

``A`` and ``B`` of all lanes are stacked; a product multiplies each row by its own lane's matrix.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from pkgllm.lm.projection import linear, linear_plus, outer


class Lanes:
    """Which rows of a pass belong to which lane.

    Where all lanes have the same number of rows and the device is a GPU, products are batched;
    else they are done lane by lane, which is as fast on a CPU and needs no padding.

    Args:
        bounds: Lane ``l`` has the rows ``bounds[l]:bounds[l + 1]``; ascending, from 0.
        batched: Whether to batch; all lanes must then be equally long.

    Example:
        >>> lanes = Lanes([0, 1, 3])
        >>> rows, factors = torch.ones(3, 1), torch.tensor([[[2.0]], [[5.0]]])
        >>> lanes.product(rows, factors)[:, 0].tolist()
        [2.0, 5.0, 5.0]
    """

    def __init__(self, bounds: Sequence[int], *, batched: bool = False) -> None:
        self.bounds = tuple(bounds)
        self._slices = [slice(a, b) for a, b in pairwise(bounds)]
        self._batched = batched

    def __len__(self) -> int:
        return len(self._slices)

    @property
    def num_rows(self) -> int:
        """How many rows all lanes have together."""
        return self.bounds[-1]

    def product(self, rows: Tensor, stacked: Tensor) -> Tensor:
        """Return every row times the transpose of its lane's matrix.

        Args:
            rows: Shape ``(rows, in)``.
            stacked: Shape ``(lanes, out, in)``; expanded where all lanes have the same.

        Returns:
            Shape ``(rows, out)``.
        """
        if _is_shared(stacked):
            return linear(rows, stacked[0])
        if self._batched:
            return torch.bmm(self._apart(rows), stacked.mT).flatten(0, 1)
        output = rows.new_empty(len(rows), stacked.shape[1])
        for lane, own in enumerate(self._slices):
            output[own] = linear(rows[own], stacked[lane])
        return output

    def add_product(self, total: Tensor, rows: Tensor, stacked: Tensor) -> Tensor:
        """Return ``total`` plus :meth:`product`; ``total`` itself may be overwritten."""
        if _is_shared(stacked):
            return linear_plus(rows, stacked[0], total)
        if self._batched:
            self._apart(total).baddbmm_(self._apart(rows), stacked.mT)
            return total
        for lane, own in enumerate(self._slices):
            total[own] += linear(rows[own], stacked[lane])
        return total

    def write_outer(self, target: Tensor, left: Tensor, right: Tensor) -> None:
        """Write each lane's sum over its rows of their outer products.

        Args:
            target: Shape ``(lanes, m, n)``; is overwritten.
            left: Shape ``(rows, m)``.
            right: Shape ``(rows, n)``.
        """
        if self._batched:
            target.copy_(torch.bmm(self._apart(left).mT, self._apart(right)))
            return
        for lane, own in enumerate(self._slices):
            target[lane] = outer(left[own], right[own])

    def _apart(self, rows: Tensor) -> Tensor:
        return rows.view(len(self), -1, rows.shape[1])


def _is_shared(stacked: Tensor) -> bool:
    return len(stacked) == 1 or stacked.stride(0) == 0
