"""Which replies may be aggregated, and why others may not."""

import math
from collections import Counter
from collections.abc import Mapping, Set

from torch import Tensor

from pkgllm.federation.messages import Fault, Update


def usable_updates(
    replies: Mapping[str, Update | Fault], expected: Mapping[str, Tensor]
) -> tuple[dict[str, Update], dict[str, str]]:
    """Return the updates that may be aggregated, and why each other client is left out.

    Updates must report the same metrics, or there is no mean of them; those that most report count.

    Args:
        replies: By client.
        expected: An adapter with the keys and shapes that an update must have.
    """
    updates: dict[str, Update] = {}
    faults: dict[str, str] = {}
    for client, reply in replies.items():
        fault = reply.reason if isinstance(reply, Fault) else update_fault(reply, expected)
        if fault is None and isinstance(reply, Update):
            updates[client] = reply
        else:
            faults[client] = str(fault)
    names = {client: tuple(sorted(update.metrics)) for client, update in updates.items()}
    if names:
        ((usual, _),) = Counter(names.values()).most_common(1)
        for client, own in names.items():
            if own != usual:
                faults[client] = f"sent the metrics {own}, the others {usual}"
                del updates[client]
    return updates, faults


def update_fault(update: Update, expected: Mapping[str, Tensor]) -> str | None:
    """Return why an update must not be aggregated, or None.

    Example:
        >>> import torch
        >>> update_fault(Update(adapter={}), {"x": torch.zeros(1)})
        'adapter has 1 keys missing and 0 foreign'
    """
    for name, number in update.metrics.items():
        if not math.isfinite(number):
            return f"metric {name} must be one finite number, got {number}"
    if not 0 < update.weight < math.inf:
        return f"weight must be positive and finite, got {update.weight}"
    if (fault := keys_fault(update.adapter.keys(), expected)) is not None:
        return fault
    for key, tensor in expected.items():
        value = update.adapter[key]
        if value.dtype != tensor.dtype or value.shape != tensor.shape:
            return f"{key} must be {described(tensor)}, got {described(value)}"
        if not value.isfinite().all():
            return f"{key} holds NaN or infinity"
    return None


def keys_fault(keys: Set[str], expected: Mapping[str, Tensor]) -> str | None:
    """Return what is wrong with the names of an update's tensors, or None."""
    missing, foreign = expected.keys() - keys, keys - expected.keys()
    if missing or foreign:
        return f"adapter has {len(missing)} keys missing and {len(foreign)} foreign"
    return None


def described(tensor: Tensor) -> str:
    """Return the type and the shape of a tensor in words."""
    return f"{str(tensor.dtype).removeprefix('torch.')} of shape {tuple(tensor.shape)}"
