"""Which corrupted triples are training triples, exactly."""

import torch
from pykeen.sampling.filtering import Filterer
from torch import Tensor

_ENTITY_BITS, _RELATION_BITS = 24, 15


class ExactFilterer(Filterer):
    """Find triples among sorted keys.

    PyKEEN's own fast filter also reports some triples that are not known, always the same ones: in
    a small graph a few per cent of them, which would then never be negatives.

    Args:
        mapped_triples: Shape ``(triples, 3)``; below 2^24 entities and 2^15 relations.

    Raises:
        ValueError: If there are more.
    """

    keys: Tensor

    def __init__(self, mapped_triples: Tensor) -> None:
        super().__init__()
        limits = torch.tensor([1 << _ENTITY_BITS, 1 << _RELATION_BITS, 1 << _ENTITY_BITS])
        if (mapped_triples >= limits).any():
            raise ValueError(
                f"entities must be below 2^{_ENTITY_BITS} and relations below "
                f"2^{_RELATION_BITS}, got {mapped_triples.amax(dim=0).tolist()}"
            )
        self.register_buffer("keys", _key(mapped_triples).sort().values)

    def contains(self, batch: Tensor) -> Tensor:
        """Return whether triples are training triples; shape without the last axis."""
        keys = _key(batch).contiguous()
        places = torch.searchsorted(self.keys, keys).clamp_(max=len(self.keys) - 1)
        known: Tensor = self.keys[places] == keys
        return known


def _key(triples: Tensor) -> Tensor:
    head, relation, tail = triples.unbind(dim=-1)
    return (((head << _RELATION_BITS) + relation) << _ENTITY_BITS) + tail
