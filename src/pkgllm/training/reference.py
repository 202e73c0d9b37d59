"""Reference log-probabilities: of the frozen base model, so computed once in a run and kept.

The cache is private data of its client. It never enters a message.
"""

import hashlib
from array import array
from collections.abc import Sequence

import torch
from peft import PeftModel
from torch import Tensor

from pkgllm.training.log_probabilities import (
    Branch,
    completion_log_probabilities,
    pack_branches,
)


class ReferenceCache:
    """Remembers ``log reference(completion | prompt)`` for every pair it was asked for.

    Args:
        policy: The model whose base is the reference; its adapter is switched off while the
            reference is computed.
        base_digest: Identifies the base model; part of every key.
    """

    def __init__(self, policy: PeftModel, base_digest: str) -> None:
        self._policy = policy
        self._salt = base_digest.encode()
        self._values: dict[bytes, float] = {}

    def __len__(self) -> int:
        return len(self._values)

    def log_probabilities(self, branches: Sequence[Branch]) -> Tensor:
        """Return the reference log-probabilities of all completions, in order.

        Args:
            branches: Prompts with the completions to score.

        Returns:
            Nats, shape ``(completions,)``, float32, on the policy's device.
        """
        keys = [
            [self._key(group.prompt.token_ids, c.token_ids) for c in completions]
            for group, completions in branches
        ]
        missing = [
            index for index, row in enumerate(keys) if any(k not in self._values for k in row)
        ]
        if missing:
            device = self._policy.device
            packed = pack_branches([branches[index] for index in missing], device)
            with torch.no_grad(), self._policy.disable_adapter():
                found = completion_log_probabilities(self._policy, packed).tolist()
            self._values.update(
                zip((key for index in missing for key in keys[index]), found, strict=True)
            )
        return torch.tensor(
            [self._values[key] for row in keys for key in row], device=self._policy.device
        )

    def _key(self, prompt: Sequence[int], completion: Sequence[int]) -> bytes:
        digest = hashlib.sha256(self._salt)
        for ids in (prompt, completion):
            digest.update(len(ids).to_bytes(4, "little"))
            digest.update(array("I", ids).tobytes())
        return digest.digest()
