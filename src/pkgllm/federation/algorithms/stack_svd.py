r"""The mean of LoRA products, factored anew, in place of the product of mean factors.

A layer of client :math:`i` adds :math:`B_i A_i` to the base model, so the mean of the clients is
:math:`\sum_i w_i B_i A_i`, which :math:`(\sum_i w_i B_i)(\sum_i w_i A_i)` is not. It equals the
product of the stacked factors

.. math:: [w_1 B_1 \cdots w_n B_n] \, [A_1; \cdots; A_n]

(Wang et al. 2024, arXiv:2409.05976, eq. 4). Here its best approximation of rank ``lora_rank``
(Eckart and Young 1936) becomes the next adapter, by QR of both stacks and an SVD of what lies
between; the product itself is never formed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pkgllm.federation.messages import Update

if TYPE_CHECKING:
    import numpy as np

    from pkgllm.lm.adapter import AdapterState

_LORA_A, _LORA_B = "lora_A", "lora_B"


def mean_of_products(updates: Sequence[Update], adapter: AdapterState) -> AdapterState:
    """Return the adapter whose products are closest to the weighted means of the updates' products.

    Raises:
        ValueError: If a key belongs to no pair of factors.
    """
    import numpy as np
    import torch

    weights = np.array([update.weight for update in updates])
    weights = weights / weights.sum()
    after = {}
    for a_key in (key for key in adapter if _LORA_A in key):
        b_key = a_key.replace(_LORA_A, _LORA_B)
        lora_as = [update.adapter[a_key].numpy() for update in updates]
        lora_bs = [update.adapter[b_key].numpy() for update in updates]
        lora_b, lora_a = refactor(
            np.concatenate([w * b for w, b in zip(weights, lora_bs, strict=True)], axis=1),
            np.concatenate(lora_as).astype(np.float64),
            lora_rank=len(lora_as[0]),
        )
        after[a_key] = torch.from_numpy(lora_a.astype(np.float32))
        after[b_key] = torch.from_numpy(lora_b.astype(np.float32))
    if after.keys() != adapter.keys():
        foreign = sorted(adapter.keys() - after.keys())
        raise ValueError(f"an adapter must hold pairs of {_LORA_A} and {_LORA_B}, got {foreign}")
    return {key: after[key] for key in adapter}


def refactor(
    lora_b: np.ndarray, lora_a: np.ndarray, *, lora_rank: int
) -> tuple[np.ndarray, np.ndarray]:
    r"""Return factors of rank ``lora_rank`` whose product is closest to that of the given ones.

    With :math:`B = Q_B R_B`, :math:`A^T = Q_A R_A` and :math:`R_B R_A^T = U S V^T` they are
    :math:`B' = Q_B U S` and :math:`A' = V^T Q_A^T`. The rows of :math:`A'` are orthonormal also
    where :math:`S` is 0, so that a direction nobody uses yet can still be trained, as in a fresh
    adapter. The largest value of each row of :math:`A'` is positive, so that equal products have
    equal factors.

    Args:
        lora_b: :math:`B`. Shape ``(out, ranks)``.
        lora_a: :math:`A`. Shape ``(ranks, in)``.
        lora_rank: Inner dimension of the result.

    Example:
        >>> import numpy as np
        >>> b, a = np.array([[2.0], [0.0]]), np.array([[0.0, -3.0]])
        >>> lora_b, lora_a = refactor(b, a, lora_rank=1)
        >>> (lora_b @ lora_a).round(12).tolist(), lora_a.round(12).tolist()
        ([[0.0, -6.0], [0.0, 0.0]], [[0.0, 1.0]])
    """
    import numpy as np

    left, inner_left = np.linalg.qr(lora_b)
    right, inner_right = np.linalg.qr(lora_a.T)
    u, s, vt = np.linalg.svd(inner_left @ inner_right.T, full_matrices=False)
    kept = min(lora_rank, len(s))
    new_b = np.zeros((len(lora_b), lora_rank))
    new_a = np.zeros((lora_rank, lora_a.shape[1]))
    new_b[:, :kept] = left @ (u[:, :kept] * s[:kept])
    new_a[:kept] = vt[:kept] @ right.T
    largest = new_a[np.arange(lora_rank), np.abs(new_a).argmax(axis=1)]
    signs = np.where(largest < 0, -1.0, 1.0)
    return new_b * signs + 0.0, new_a * signs[:, None] + 0.0
