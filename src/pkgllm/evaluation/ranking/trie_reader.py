"""A decoder as the reader of a trie search: numbers of nodes in, log-probabilities out."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pkgllm.evaluation.ranking.branches import Branches, Continuation
from pkgllm.evaluation.ranking.trie_search import Rows


class TrieReader:
    """Has read one prompt per client, and feeds the nodes of a trie after them.

    Args:
        branches: Keeps what is attended to; what it kept before is forgotten.
        prompts: Token ids, none empty.
        logits_at_once: Rows of logits, each as long as the vocabulary, that exist at once.
    """

    def __init__(
        self, branches: Branches, prompts: Sequence[Sequence[int]], *, logits_at_once: int
    ) -> None:
        self.capacity = branches.capacity
        self._branches = branches
        self._num_clients = len(prompts)
        self._logits_at_once = logits_at_once
        self._last_hidden = branches.read(prompts)

    def first_log_probs(self, tokens: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return log-probabilities of tokens after each prompt, shape ``(clients, tokens)``."""
        offsets = np.arange(self._num_clients + 1) * len(tokens)
        log_probs = self._log_probs(self._last_hidden, np.tile(tokens, self._num_clients), offsets)
        return log_probs.reshape(self._num_clients, len(tokens))

    def feed(self, rows: Rows) -> NDArray[np.float32]:
        """Feed rows into the next slots and return their children's log-probabilities."""
        missing = rows.path < 0
        # Filled up with its own slot, a branch meets no other's numbers, which might be NaN.
        own = np.take_along_axis(rows.path, rows.depths[:, None], axis=1)
        hidden = self._branches.feed(
            Continuation(
                input_ids=self._tensor(rows.input_ids),
                depths=self._tensor(rows.depths),
                bounds=tuple(
                    np.searchsorted(rows.clients, np.arange(self._num_clients + 1)).tolist()
                ),
                path=self._tensor(np.where(missing, own, rows.path)),
                missing=self._tensor(missing) if missing.any() else None,
            )
        )
        return self._log_probs(hidden, rows.child_tokens, rows.child_offsets)

    def forget(self, num_kept: int) -> None:
        """Free all slots but the first ones."""
        self._branches.forget(num_kept)

    def _log_probs(
        self, hidden: Tensor, tokens: NDArray[np.int64], offsets: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        if not len(tokens):
            return np.empty(0, dtype=np.float32)
        rows = np.repeat(np.arange(len(hidden)), np.diff(offsets))
        of_tokens = self._branches.decoder.log_probs(
            hidden,
            offsets.tolist(),
            self._tensor(rows),
            self._tensor(tokens),
            rows_at_once=self._logits_at_once,
        )
        log_probs: NDArray[np.float32] = of_tokens.cpu().numpy()
        return log_probs

    def _tensor(self, values: NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(values).to(self._branches.decoder.device)
