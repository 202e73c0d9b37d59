"""A causal language model writes lists: free text, greedy or sampled, or titles of the catalogue.

Prompts of different lengths go through the model together, padded on the left. The result for a
client does not depend on who shares its batch, up to rounding: in float32 that only decides between
tokens whose probabilities are equal to about six digits, in bfloat16 it decides more often.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from peft import PeftModel
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from pkgllm.errors import ModelError
from pkgllm.evaluation.lists.constrained_decoding import ConstrainedList, TitleLists
from pkgllm.evaluation.lists.free_text import Answer, FreeText, Pick, Sampler, most_probable
from pkgllm.evaluation.ranking.trie import CatalogueTrie
from pkgllm.lm.adapter import without_adapter
from pkgllm.prompts.prompts import Prompt
from pkgllm.randomness import stream


class Writer(Protocol):
    """Chooses the tokens of a batch."""

    def write(self, logits: Tensor) -> Sequence[int | None]:
        """Return the token to feed next in each row; None where the row is done.

        Args:
            logits: Of the next token, float32. Shape ``(rows, vocabulary)``.
        """
        ...


class ListDecoder:
    """Writes an answer to each client's prompt.

    A model that was tuned on one title per completion answers with one title: greedy lists of such
    a model are short, and their mean length must stand beside their scores.

    Args:
        model: A causal language model, or one with an adapter by PEFT. It decodes in evaluation
            mode.
        max_positions: Longest sequence the model was made for, tokens.
        batch_size: Prompts that go through the model together; memory grows with this and the
            longest sequence, not with the number of clients.
        with_adapter: Whether the adapter counts; without it the base model under it writes.

    Raises:
        ValueError: If ``batch_size`` is not positive.
    """

    def __init__(
        self,
        model: PreTrainedModel | PeftModel,
        *,
        max_positions: int,
        batch_size: int = 16,
        with_adapter: bool = True,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self._model = model
        self._max_positions = max_positions
        self._batch_size = batch_size
        self._with_adapter = with_adapter

    def greedy(
        self, prompts: Sequence[Prompt], *, terminator: int, max_new_tokens: int
    ) -> tuple[Answer, ...]:
        """Write the most probable token each time, until the terminator.

        Args:
            prompts: One per client.
            terminator: Token that ends an answer.
            max_new_tokens: Longest answer, the terminator included.

        Returns:
            One answer per prompt, in their order.

        Raises:
            ModelError: If a prompt is empty or leaves no room for the longest answer, which is seen
                before anything is written, or the model gives no finite logits.
            ValueError: If ``max_new_tokens`` is not positive.
        """
        pick = [most_probable] * len(prompts)
        return self._free_text(prompts, pick, terminator, max_new_tokens)

    def sampled(
        self,
        prompts: Sequence[Prompt],
        *,
        terminator: int,
        max_new_tokens: int,
        seed: int,
        temperature: float = 1.0,
    ) -> tuple[Answer, ...]:
        r"""Draw each token from the model's distribution, until the terminator.

        The distribution is :math:`\mathrm{softmax}(z / T)` of the logits :math:`z`, over the whole
        vocabulary. A client's random numbers are its own: they depend on the seed and on its id,
        not on the other prompts. Give several seeds to see how far the scores vary.

        Args:
            prompts: One per client.
            terminator: Token that ends an answer.
            max_new_tokens: Longest answer, the terminator included.
            seed: The run's seed.
            temperature: :math:`T`, positive.

        Raises:
            ModelError: As :meth:`greedy` does.
            ValueError: If ``max_new_tokens`` or ``temperature`` is not positive.
        """
        if not temperature > 0:
            raise ValueError(f"temperature must be positive, got {temperature}")
        pick = [Sampler(stream(seed, "lists", prompt.client), temperature) for prompt in prompts]
        return self._free_text(prompts, pick, terminator, max_new_tokens)

    def constrained(
        self,
        prompts: Sequence[Prompt],
        trie: CatalogueTrie,
        candidates: Sequence[NDArray[np.bool_]],
        *,
        k: int,
        separator: Sequence[int],
    ) -> tuple[tuple[int, ...], ...]:
        """Write exactly ``k`` titles of the catalogue, the most probable allowed token each time.

        No title stands twice, and none that is no candidate. Between two titles stands the
        separator in place of the terminator, so the list reads like one title per line.

        Args:
            prompts: One per client.
            trie: The catalogue, tokenised for this model.
            candidates: For each prompt, True where a column may be listed, as by
                :func:`pkgllm.evaluation.scorer.candidate_mask`. Shape ``(columns,)`` each.
            k: Titles in a list; fewer where a client has not so many candidates.
            separator: Tokens of a line break.

        Returns:
            For each prompt the columns of its list, in the order written.

        Raises:
            ModelError: If a prompt is empty or leaves no room for ``k`` titles of the longest kind,
                which is seen before anything is written, or the model gives no finite logits.
            ValueError: If ``k`` is not positive, the separator is empty, there are not as many
                masks as prompts, or a mask has a wrong shape or no candidate.
        """
        if k < 1 or not separator:
            raise ValueError(
                f"k must be at least 1 and the separator a token or more, got {k} and {separator}"
            )
        if len(candidates) != len(prompts):
            raise ValueError(
                f"every prompt needs its candidates, got {len(prompts)} and {len(candidates)}"
            )
        for mask in candidates:
            if mask.shape != trie.terminal_nodes.shape or not mask.any():
                raise ValueError(
                    f"candidates must have shape {trie.terminal_nodes.shape} and hold one or more, "
                    f"got shape {mask.shape} with {int(mask.sum())}"
                )
        longest = k * trie.longest_input + (k - 1) * len(separator)
        columns: list[tuple[int, ...]] = [()] * len(prompts)
        for places in self._batches(prompts, longest):
            walks = [
                ConstrainedList(trie, candidates[place], k=k, separator=separator)
                for place in places
            ]
            self._decode([prompts[place] for place in places], TitleLists(trie, walks))
            for place, walk in zip(places, walks, strict=True):
                columns[place] = tuple(walk.columns)
        return tuple(columns)

    def _free_text(
        self,
        prompts: Sequence[Prompt],
        pick: Sequence[Pick],
        terminator: int,
        max_new_tokens: int,
    ) -> tuple[Answer, ...]:
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be at least 1, got {max_new_tokens}")
        answers = [Answer((), finished=False)] * len(prompts)
        for places in self._batches(prompts, max_new_tokens):
            writer = FreeText([pick[place] for place in places], terminator, max_new_tokens)
            self._decode([prompts[place] for place in places], writer)
            for place, answer in zip(places, writer.answers(), strict=True):
                answers[place] = answer
        return tuple(answers)

    def _batches(self, prompts: Sequence[Prompt], longest: int) -> list[list[int]]:
        """Put prompts of like length together, so that little is padded."""
        for prompt in prompts:
            if not 0 < len(prompt.token_ids) <= self._max_positions - longest:
                raise ModelError(
                    f"client {prompt.client!r}: the prompt must have 1 to "
                    f"{self._max_positions - longest} tokens, so that the longest answer "
                    f"({longest} tokens) fits into the model's {self._max_positions} positions; "
                    f"got {len(prompt.token_ids)}; lower prompt.max_tokens or ask for shorter lists"
                )
        order = sorted(range(len(prompts)), key=lambda place: len(prompts[place].token_ids))
        starts = range(0, len(order), self._batch_size)
        return [order[start : start + self._batch_size] for start in starts]

    def _decode(self, prompts: Sequence[Prompt], writer: Writer) -> None:
        """Let a writer choose tokens until every row is done."""
        with self._ready():
            device = self._model.device
            input_ids, mask = _padded([prompt.token_ids for prompt in prompts], device)
            positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
            cache = DynamicCache(config=self._model.config)
            fed: Sequence[int | None] = [0] * len(prompts)
            while any(token is not None for token in fed):
                logits = self._model(
                    input_ids=input_ids,
                    attention_mask=mask,
                    position_ids=positions,
                    past_key_values=cache,
                    use_cache=True,
                    logits_to_keep=1,
                ).logits[:, -1]
                logits = logits.float()
                _check_finite(logits, prompts, fed)
                fed = writer.write(logits)
                # A row that is done stays in the batch and is fed anything; nobody reads it.
                input_ids = torch.tensor([[token or 0] for token in fed], device=device)
                mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
                positions = positions[:, -1:] + 1

    @contextmanager
    def _ready(self) -> Iterator[None]:
        model = self._model
        adapter: AbstractContextManager[None] = nullcontext()
        if isinstance(model, PeftModel) and not self._with_adapter:
            adapter = without_adapter(model)
        # In training mode dropout is on, and gradient checkpointing refuses a cache.
        was_training = model.training
        model.train(False)
        try:
            with torch.inference_mode(), adapter:
                yield
        finally:
            model.train(was_training)


def _padded(sequences: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return token ids and mask, padded on the left, both of shape ``(rows, longest)``."""
    longest = max(len(sequence) for sequence in sequences)
    rows = [[0] * (longest - len(sequence)) + list(sequence) for sequence in sequences]
    mask = [[0] * (longest - len(sequence)) + [1] * len(sequence) for sequence in sequences]
    return torch.tensor(rows, device=device), torch.tensor(mask, device=device)


def _check_finite(logits: Tensor, prompts: Sequence[Prompt], fed: Sequence[int | None]) -> None:
    for row, usable in enumerate(logits.amax(dim=1).isfinite().tolist()):
        if fed[row] is not None and not usable:
            raise ModelError(
                f"client {prompts[row].client!r}: the logits of a list must be finite numbers, "
                "got NaN or infinity; the model may have diverged, or its dtype may be too narrow"
            )
