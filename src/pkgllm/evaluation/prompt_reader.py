"""A causal language model that has read a prompt and is fed chunks of the catalogue after it."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from pkgllm.evaluation.trie import Chunk

_LOGITS_AT_ONCE = 1 << 24
"""Rows times vocabulary that the LM head may give at once: 64 MiB in float32."""


class PromptReader:
    """Keeps the keys and values of a prompt, and of what was fed after it.

    Log-probabilities are taken in float32.

    Args:
        model: With full attention in every layer, in evaluation mode.
        prompt_ids: Token ids of the prompt, shape ``(1, tokens)``, on the model's device.
    """

    def __init__(self, model: PreTrainedModel, prompt_ids: Tensor) -> None:
        self._model = model
        self._prompt_length = prompt_ids.shape[1]
        self._cache = DynamicCache()
        self._last_hidden = self._hidden(input_ids=prompt_ids)[-1:]

    def first_log_probs(self, tokens: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the log-probabilities of tokens right after the prompt, shape ``(tokens,)``."""
        offsets = np.array([0, len(tokens)])
        return self._log_probs(self._last_hidden, offsets, np.zeros_like(tokens), tokens)

    def feed(self, chunk: Chunk) -> NDArray[np.float32]:
        """Feed a chunk after all that was fed, and return its children's log-probabilities."""
        device = self._model.device
        visible = torch.from_numpy(chunk.visible).to(device)
        sees_prompt = visible.new_ones(len(visible), self._prompt_length)
        hidden = self._hidden(
            input_ids=torch.from_numpy(chunk.input_ids).to(device)[None],
            position_ids=torch.from_numpy(chunk.depths).to(device)[None] + self._prompt_length,
            attention_mask=torch.cat([sees_prompt, visible], dim=1)[None, None],
        )
        return self._log_probs(
            hidden[chunk.num_carried :], chunk.child_offsets, chunk.child_rows, chunk.child_tokens
        )

    def forget(self) -> None:
        """Go back to the prompt's end."""
        num_fed = self._cache.get_seq_length() - self._prompt_length
        if num_fed:
            self._cache.crop(-num_fed)

    def _hidden(self, **inputs: Tensor) -> Tensor:
        """Return the last hidden states, shape ``(tokens, hidden)``, and extend the cache."""
        body = self._model.base_model
        output = body(**inputs, past_key_values=self._cache, use_cache=True)
        states: Tensor = output.last_hidden_state
        return states[0]

    def _log_probs(
        self,
        hidden: Tensor,
        offsets: NDArray[np.int64],
        rows: NDArray[np.int64],
        tokens: NDArray[np.int64],
    ) -> NDArray[np.float32]:
        """Return the log-probability of each row's tokens, a few rows of logits at a time.

        Args:
            hidden: Shape ``(rows, hidden)``.
            offsets: Row ``r`` has the tokens ``offsets[r]:offsets[r + 1]``.
            rows: Row of each token, ascending. Shape ``(tokens,)``.
            tokens: Shape ``(tokens,)``.
        """
        # transformers leaves this method untyped.
        head = self._model.get_output_embeddings()  # type: ignore[no-untyped-call]
        block = max(1, _LOGITS_AT_ONCE // self._model.config.vocab_size)
        found: list[Tensor] = []
        for start in range(0, len(hidden), block):
            stop = min(start + block, len(hidden))
            part = slice(int(offsets[start]), int(offsets[stop]))
            at = torch.from_numpy(rows[part] - start).to(hidden.device)
            wanted = torch.from_numpy(tokens[part]).to(hidden.device)
            found.append(head(hidden[start:stop]).float().log_softmax(dim=-1)[at, wanted])
        log_probs: NDArray[np.float32] = torch.cat(found).cpu().numpy()
        return log_probs
