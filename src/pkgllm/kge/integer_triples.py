"""Triples of integers: what knowledge graph embeddings learn from."""

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from pykeen.triples import CoreTriplesFactory

from pkgllm.errors import DataError


@dataclass(frozen=True, slots=True, eq=False)
class IntegerTriples:
    """Distinct (head, relation, tail), sorted.

    Args:
        triples: In any order, also more than once. Shape ``(triples, 3)``, integers.
        num_entities: Heads and tails are from 0 to below it; some may occur in no triple.
        num_relations: Relations are from 0 to below it.

    Raises:
        DataError: If there is no triple, or one names something out of range.
        ValueError: If the array has another shape or type.

    Example:
        >>> twice = np.array([[1, 0, 2], [0, 0, 1], [1, 0, 2]])
        >>> IntegerTriples(twice, num_entities=3, num_relations=1).triples.tolist()
        [[0, 0, 1], [1, 0, 2]]
    """

    triples: NDArray[np.int64]
    num_entities: int
    num_relations: int

    def __post_init__(self) -> None:
        rows = np.asarray(self.triples)
        if rows.ndim != 2 or rows.shape[1] != 3 or not np.issubdtype(rows.dtype, np.integer):
            raise ValueError(
                f"triples must be integers of shape (n, 3), got {rows.dtype} {rows.shape}"
            )
        if not len(rows):
            raise DataError(
                "a knowledge graph must hold at least one triple to learn from, got none; read "
                "more dialogues or facts"
            )
        for what, columns, size in (
            ("entity", rows[:, ::2], self.num_entities),
            ("relation", rows[:, 1], self.num_relations),
        ):
            if columns.min() < 0 or columns.max() >= size:
                raise DataError(
                    f"every {what} of a triple must be from 0 to {size - 1}, got "
                    f"{columns.min()} to {columns.max()}; count what the graph holds again"
                )
        object.__setattr__(self, "triples", np.unique(rows.astype(np.int64), axis=0))

    def factory(self, *, inverse: bool = False) -> CoreTriplesFactory:
        """Return the triples as PyKEEN takes them.

        Args:
            inverse: Whether PyKEEN adds an inverse of every triple, with a relation of its own.
        """
        return CoreTriplesFactory(
            torch.from_numpy(self.triples),
            num_entities=self.num_entities,
            num_relations=self.num_relations,
            create_inverse_triples=inverse,
        )

    def digest(self) -> str:
        """Return the SHA-256 of the triples and counts, hexadecimal."""
        content = hashlib.sha256(f"{self.num_entities} {self.num_relations} ".encode())
        content.update(self.triples.astype("<i8").tobytes())
        return content.hexdigest()
