"""Reference log-probabilities: of the frozen base model, so computed once in a run and kept."""

import hashlib
from array import array
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from pkgllm.training.log_probabilities import Branch
from pkgllm.training.reference_disk import DiskTier
from pkgllm.training.reference_memory import MemoryTier

ReferenceScore = Callable[[Sequence[Branch]], Tensor]
"""Computes ``log reference(completion | prompt)`` for all completions, in order.

Nats, shape ``(completions,)``, float32.
"""


class ReferenceCache:
    """Remembers ``log reference(completion | prompt)`` for every pair it was asked for.

    A value is computed once and read from memory afterwards. When memory is full, the values that
    were not asked for longest move to disk; without a disk they are forgotten and computed again.
    A run that fits into memory leaves no file.

    The cache is private data of its client: whoever holds it can test which prompt the client has.
    It stays on the client's device and never enters a message.

    Args:
        score: Computes what is missing, and is asked for nothing else.
        base_digest: Identifies the base model; part of every key, so that a file of another base
            model never answers.
        memory_bytes: For the values in memory, at least 0.
        disk: The file for all others, in a folder that exists, or None.

    Raises:
        ValueError: If ``memory_bytes`` is negative.
    """

    def __init__(
        self, score: ReferenceScore, *, base_digest: str, memory_bytes: int, disk: Path | None
    ) -> None:
        self._score = score
        self._salt = base_digest.encode()
        self._memory = MemoryTier(memory_bytes)
        self._disk = None if disk is None else DiskTier(disk)

    def __len__(self) -> int:
        """Return the number of values in memory."""
        return len(self._memory)

    def log_probabilities(self, branches: Sequence[Branch]) -> Tensor:
        """Return the reference log-probabilities of all completions, in order.

        Args:
            branches: Prompts with the completions to score.

        Returns:
            Nats, shape ``(completions,)``, float32, on the CPU.

        Raises:
            RunError: If the file cannot be used, and a new one could not be either.
            ValueError: If ``score`` does not return one value for each completion.
        """
        keys = [
            [self._key(group.prompt.token_ids, c.token_ids) for c in completions]
            for group, completions in branches
        ]
        values = self._remembered(list(dict.fromkeys(key for row in keys for key in row)))
        values |= self._computed(branches, keys, values)
        self._keep({key: values[key] for row in keys for key in row})
        return torch.tensor([values[key] for row in keys for key in row], dtype=torch.float32)

    def _remembered(self, keys: Sequence[bytes]) -> dict[bytes, float]:
        in_memory = {key: self._memory.get(key) for key in keys}
        values = {key: value for key, value in in_memory.items() if value is not None}
        if self._disk is not None:
            values |= self._disk.read([key for key in keys if key not in values])
        return values

    def _computed(
        self,
        branches: Sequence[Branch],
        keys: Sequence[Sequence[bytes]],
        known: Mapping[bytes, float],
    ) -> dict[bytes, float]:
        """Return the values that are not known, each computed once."""
        missing: list[bytes] = []
        asked: list[Branch] = []
        seen = set(known)
        for (group, completions), row in zip(branches, keys, strict=True):
            new = {
                key: completion
                for key, completion in zip(row, completions, strict=True)
                if key not in seen
            }
            if new:
                seen.update(new)
                missing += new
                asked.append((group, tuple(new.values())))
        if not missing:
            return {}
        found = self._score(asked)
        if found.shape != (len(missing),):
            raise ValueError(
                f"score must return one value for each of {len(missing)} completions, got the "
                f"shape {tuple(found.shape)}"
            )
        return dict(zip(missing, found.float().tolist(), strict=True))

    def _keep(self, used: Mapping[bytes, float]) -> None:
        leaving: dict[bytes, float] = {}
        for key, value in used.items():
            leaving |= self._memory.put(key, value)
        if leaving and self._disk is not None:
            self._disk.write(leaving)

    def _key(self, prompt: Sequence[int], completion: Sequence[int]) -> bytes:
        digest = hashlib.sha256(self._salt)
        for ids in (prompt, completion):
            digest.update(len(ids).to_bytes(4, "little"))
            digest.update(array("I", ids).tobytes())
        return digest.digest()
