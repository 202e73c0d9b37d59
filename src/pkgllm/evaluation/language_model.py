"""A language model as a scorer: the exact log-probability of every title of the catalogue."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import numpy as np
import torch
from numpy.typing import NDArray
from peft import PeftModel
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from pkgllm.errors import ModelError
from pkgllm.evaluation.scorer import ClientQueries
from pkgllm.evaluation.trie import CatalogueTrie, Chunk
from pkgllm.graph.personal_graph import PersonalGraph

_LOGITS_AT_ONCE = 1 << 24
"""Rows times vocabulary that the LM head may give at once: 64 MiB in float32."""


class LanguageModelScorer:
    r"""Score a title by the log-probability of its tokens and terminator after the prompt.

    .. math:: s(t) = \sum_i \log p(t_i \mid \text{prompt}, t_1 \ldots t_{i-1})

    in nats, without any length normalisation. The prompt goes through the model once; its cached
    keys and values serve all chunks of the trie. The result equals one forward pass for each title
    up to rounding; log-probabilities are taken in float32 and added up in float64.

    Args:
        name: The model's name in results.
        model: A causal language model with full attention, or one with an adapter by PEFT.
        prompt_ids: Token ids of a graph's prompt, up to the point where a title begins.
        trie: The catalogue, tokenised for this model.
        max_positions: Longest sequence the model was made for, tokens.
        context: Entered around all forward passes. ``policy.disable_adapter`` gives the base model
            that lies under a policy.

    Raises:
        ModelError: If the model has a layer without full attention, where a mask over the trie
            would not mean what it says.
    """

    def __init__(
        self,
        name: str,
        model: PreTrainedModel | PeftModel,
        prompt_ids: Callable[[PersonalGraph], Sequence[int]],
        trie: CatalogueTrie,
        *,
        max_positions: int,
        context: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self.name = name
        self._model = _causal_model(model)
        self._prompt_ids = prompt_ids
        self._trie = trie
        self._max_positions = max_positions
        self._context = context
        layer_types = set(getattr(self._model.config, "layer_types", None) or ["full_attention"])
        if layer_types != {"full_attention"}:
            raise ModelError(
                f"model {name!r}: every layer must have full attention to rank a catalogue, got "
                f"{', '.join(sorted(layer_types))}; choose another base model"
            )

    def scores(self, queries: Sequence[ClientQueries]) -> NDArray[np.float64]:
        """Score the whole catalogue for each client.

        Returns:
            Log-probabilities in nats, shape ``(len(queries), len(catalogue))``.

        Raises:
            ModelError: If a client's prompt is empty, or leaves no room for the longest title.
        """
        found = np.empty((len(queries), len(self._trie.terminal_nodes)))
        with torch.inference_mode(), _evaluation_mode(self._model), self._context():
            for row, query in enumerate(queries):
                prompt = self._prompt(query)
                found[row] = self._trie.path_sums(self._node_log_probs(prompt))
        return found

    def _prompt(self, query: ClientQueries) -> Tensor:
        ids = list(self._prompt_ids(query.graph))
        needed = len(ids) + self._trie.longest_input
        if not ids or needed > self._max_positions:
            raise ModelError(
                f"client {query.client!r}: the prompt must have 1 to "
                f"{self._max_positions - self._trie.longest_input} tokens, so that the longest "
                f"title ({self._trie.longest_input} tokens) fits into the {self._max_positions} "
                f"positions of model {self.name!r}; got {len(ids)}; lower prompt.max_tokens"
            )
        return torch.tensor([ids], device=self._model.device)

    def _node_log_probs(self, prompt: Tensor) -> NDArray[np.float64]:
        """Return the log-probability of every node given its parent, shape ``(nodes,)``."""
        trie, cache = self._trie, DynamicCache()
        found = np.empty(len(trie))
        hidden = self._hidden(cache, input_ids=prompt)[-1:]
        first = trie.first_nodes
        found[first] = self._log_probs(
            hidden, np.array([0, len(first)]), np.zeros_like(first), trie.tokens[first]
        )
        for chunk in trie.chunks:
            hidden = self._chunk_hidden(cache, chunk, prompt.shape[1])
            found[chunk.child_nodes] = self._log_probs(
                hidden, chunk.child_offsets, chunk.child_rows, chunk.child_tokens
            )
        return found

    def _chunk_hidden(self, cache: DynamicCache, chunk: Chunk, prompt_length: int) -> Tensor:
        """Feed a chunk after the prompt and take it out of the cache again."""
        device, num_inputs = self._model.device, len(chunk.input_ids)
        ancestors = torch.from_numpy(chunk.ancestors).to(device)
        sees_prompt = ancestors.new_ones(num_inputs, prompt_length)
        hidden = self._hidden(
            cache,
            input_ids=torch.from_numpy(chunk.input_ids).to(device)[None],
            position_ids=torch.from_numpy(chunk.depths).to(device)[None] + prompt_length,
            attention_mask=torch.cat([sees_prompt, ancestors], dim=1)[None, None],
        )
        cache.crop(-num_inputs)
        return hidden[chunk.num_carried :]

    def _hidden(self, cache: DynamicCache, **inputs: Tensor) -> Tensor:
        """Return the last hidden states, shape ``(tokens, hidden)``, and extend the cache."""
        body = self._model.base_model
        states: Tensor = body(**inputs, past_key_values=cache, use_cache=True).last_hidden_state
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
            logits = head(hidden[start:stop]).float()
            part = slice(int(offsets[start]), int(offsets[stop]))
            at = torch.from_numpy(rows[part] - start).to(hidden.device)
            wanted = torch.from_numpy(tokens[part]).to(hidden.device)
            found.append(logits[at, wanted] - logits.logsumexp(dim=-1)[at])
        log_probs: NDArray[np.float32] = torch.cat(found).cpu().numpy()
        return log_probs


def _causal_model(model: PreTrainedModel | PeftModel) -> PreTrainedModel:
    """Return the causal language model; PEFT has put the adapter into its layers."""
    found = model.get_base_model() if isinstance(model, PeftModel) else model
    assert isinstance(found, PreTrainedModel)
    return found


@contextmanager
def _evaluation_mode(model: PreTrainedModel) -> Iterator[None]:
    # In training mode dropout is on, and gradient checkpointing refuses a cache.
    was_training = model.training
    model.train(False)
    try:
        yield
    finally:
        model.train(was_training)
