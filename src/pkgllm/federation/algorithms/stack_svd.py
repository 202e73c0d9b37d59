r"""The mean of LoRA products, factored anew, in place of the product of mean factors.

A layer of client :math:`i` adds :math:`B_i A_i` to the base model, so the mean of the clients is
:math:`\sum_i w_i B_i A_i`, which :math:`(\sum_i w_i B_i)(\sum_i w_i A_i)` is not. It equals the
product of the stacked factors

.. math:: [w_1 B_1 \cdots w_n B_n] \, [A_1; \cdots; A_n]

(Wang et al. 2024, arXiv:2409.05976, eq. 4). Here its best approximation of rank ``lora_rank``
(Eckart and Young 1936) becomes the next adapter, by QR of both stacks and an SVD of what lies
between; the product itself is never formed.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord

from pkgllm.federation.flower.records import ARRAYS, METRICS, WEIGHT

_FIRST, _SECOND = "lora_A", "lora_B"


class StackSvd:
    """Makes a strategy that averages take the mean of products; stands before its class."""

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Return the mean adapter, and the weighted means of the metrics."""
        valid, _ = self._check_and_log_replies(replies, is_train=True)  # type: ignore[attr-defined]
        if not valid:
            return None, None
        contents = [message.content for message in valid]
        weights = np.array([float(c.metric_records[METRICS][WEIGHT]) for c in contents])
        arrays = mean_of_products(
            [content.array_records[ARRAYS] for content in contents], weights / weights.sum()
        )
        metrics = self.train_metrics_aggr_fn(contents, WEIGHT)  # type: ignore[attr-defined]
        return arrays, metrics


def mean_of_products(updates: Sequence[ArrayRecord], weights: np.ndarray) -> ArrayRecord:
    """Return the adapter whose products are closest to the weighted means of the updates' products.

    Args:
        updates: Adapters with the same keys, read layer by layer.
        weights: Of the updates; they sum to 1.

    Raises:
        ValueError: If a key belongs to no pair of factors.
    """
    after = {}
    for first_key in (key for key in updates[0] if _FIRST in key):
        second_key = first_key.replace(_FIRST, _SECOND)
        firsts = [update[first_key].numpy() for update in updates]
        seconds = [update[second_key].numpy() for update in updates]
        second, first = refactor(
            np.concatenate([w * b for w, b in zip(weights, seconds, strict=True)], axis=1),
            np.concatenate(firsts).astype(np.float64),
            lora_rank=len(firsts[0]),
        )
        after[first_key] = Array(first.astype(np.float32))
        after[second_key] = Array(second.astype(np.float32))
    if after.keys() != updates[0].keys():
        foreign = sorted(updates[0].keys() - after.keys())
        raise ValueError(f"an adapter must hold pairs of {_FIRST} and {_SECOND}, got {foreign}")
    return ArrayRecord({key: after[key] for key in updates[0]})


def refactor(
    second: np.ndarray, first: np.ndarray, *, lora_rank: int
) -> tuple[np.ndarray, np.ndarray]:
    r"""Return factors of rank ``lora_rank`` whose product is closest to that of the given ones.

    With :math:`B = Q_B R_B`, :math:`A^T = Q_A R_A` and :math:`R_B R_A^T = U S V^T` they are
    :math:`B' = Q_B U S` and :math:`A' = V^T Q_A^T`. The rows of :math:`A'` are orthonormal also
    where :math:`S` is 0, so that a direction nobody uses yet can still be trained, as in a fresh
    adapter. The largest value of each row of :math:`A'` is positive, so that equal products have
    equal factors.

    Args:
        second: :math:`B`. Shape ``(out, ranks)``.
        first: :math:`A`. Shape ``(ranks, in)``.
        lora_rank: Inner dimension of the result.

    Example:
        >>> second, first = refactor(np.array([[2.0], [0.0]]), np.array([[0.0, -3.0]]), lora_rank=1)
        >>> (second @ first).round(12).tolist(), first.round(12).tolist()
        ([[0.0, -6.0], [0.0, 0.0]], [[0.0, 1.0]])
    """
    left, inner_left = np.linalg.qr(second)
    right, inner_right = np.linalg.qr(first.T)
    u, s, vt = np.linalg.svd(inner_left @ inner_right.T, full_matrices=False)
    kept = min(lora_rank, len(s))
    new_second = np.zeros((len(second), lora_rank))
    new_first = np.zeros((lora_rank, first.shape[1]))
    new_second[:, :kept] = left @ (u[:, :kept] * s[:kept])
    new_first[:kept] = vt[:kept] @ right.T
    largest = new_first[np.arange(lora_rank), np.abs(new_first).argmax(axis=1)]
    signs = np.where(largest < 0, -1.0, 1.0)
    return new_second * signs + 0.0, new_first * signs[:, None] + 0.0
