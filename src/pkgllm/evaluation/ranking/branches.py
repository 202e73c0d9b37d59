"""A language model that has read several prompts and is fed branches that continue them.

Prompts are read once, and what one begins with like the one before it is not read again. Each token
fed afterwards continues one prompt along one branch: it attends to that prompt, to the tokens
before it on its branch, and to itself.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.bias import causal_lower_right

from pkgllm.evaluation.ranking.trie import shared_length
from pkgllm.lm.decoder import Decoder
from pkgllm.lm.projection import linear

KeysAndValues = tuple[Tensor, Tensor]
"""Keys ``(heads, tokens, head_dim)`` and values ``(heads, head_dim, tokens)`` of one layer."""


@dataclass(frozen=True, slots=True)
class Continuation:
    """Tokens that continue prompts, ordered by prompt.

    Every array is an int64 tensor on the model's device.
    """

    input_ids: Tensor
    """Shape ``(rows,)``."""
    depths: Tensor
    """Tokens between the prompt and each. Shape ``(rows,)``."""
    bounds: tuple[int, ...]
    """Rows ``bounds[p]:bounds[p + 1]`` continue prompt ``p``."""
    path: Tensor
    """Slots of the tokens before each on its branch and of itself; a slot is a place in the order
    of feeding, these rows included. Shorter branches are filled up with any slot in use whose
    keys and values are finite, or their own. Shape ``(rows, longest)``."""
    missing: Tensor | None
    """True where ``path`` is filled up, or None where nothing is. Shape ``(rows, longest)``."""


class SlotMemory:
    """Room for the keys and values of branches, for models that use it one after the other.

    It is kept between uses: asking the system for fresh memory costs more than many a pass.
    """

    def __init__(self) -> None:
        self._slots: Tensor | None = None

    def slots(self, decoder: Decoder, capacity: int) -> Tensor:
        """Return room for a decoder's keys and values of ``capacity`` tokens.

        Returns:
            Shape ``(layers, capacity, 2, key_value_heads, head_dim)``, of the decoder's dtype and
            on its device; what it holds means nothing.
        """
        shape = (decoder.num_layers, capacity, 2, decoder.num_key_value_heads, decoder.head_dim)
        like = decoder.dtype, decoder.device
        slots = self._slots
        if slots is None or slots.shape != shape or (slots.dtype, slots.device) != like:
            self._slots = None
            slots = torch.empty(shape, dtype=decoder.dtype, device=decoder.device)
            self._slots = slots
        return slots


class Branches:
    """Keeps keys and values of the prompts that are being continued, and of what continues them.

    Args:
        decoder: The model.
        capacity: Most tokens that are kept beside the prompts.
        rows_at_once: Most tokens of several prompts that are read in one pass.
        memory: Where they are kept; what another model kept there is lost.
    """

    def __init__(
        self,
        decoder: Decoder,
        *,
        capacity: int,
        rows_at_once: int = 1,
        memory: SlotMemory | None = None,
    ) -> None:
        self.decoder = decoder
        self.capacity = capacity
        self.num_fed = 0
        """Slots in use."""
        self._rows_at_once = rows_at_once
        self._prompts: list[list[KeysAndValues]] = []
        """Of each prompt, by layer."""
        self._last_prompt: Sequence[int] = ()
        self._slots = (memory or SlotMemory()).slots(decoder, capacity)

    def read(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Read prompts in place of those before, and return each one's last hidden state.

        What a prompt begins with like the one before it, be it of an earlier call, is taken over.
        Of prompts in sorted order no beginning is read twice.

        Args:
            prompts: Token ids, none empty.

        Returns:
            Shape ``(len(prompts), hidden)``.
        """
        self.num_fed = 0
        before = self._last_prompt
        shared = []
        for prompt in prompts:
            # The last token is read in any case, because its hidden state is asked for.
            shared.append(min(shared_length(before, prompt), len(prompt) - 1))
            before = prompt
        held = self._prompts[-1] if self._prompts else []
        self._prompts, self._last_prompt = [], ()
        last = []
        for first, stop in self._passes(prompts, shared):
            last.append(self._read_at_once(prompts[first:stop], shared[first:stop], held))
            held = list(self._prompts[-1])
        self._last_prompt = before
        return torch.cat(last)

    def _passes(
        self, prompts: Sequence[Sequence[int]], shared: Sequence[int]
    ) -> Iterator[tuple[int, int]]:
        first = rows = 0
        for place, (prompt, start) in enumerate(zip(prompts, shared, strict=True)):
            length = len(prompt) - start
            if rows and rows + length > self._rows_at_once:
                yield first, place
                first, rows = place, 0
            rows += length
        yield first, len(prompts)

    def _read_at_once(
        self,
        prompts: Sequence[Sequence[int]],
        shared: Sequence[int],
        held: list[KeysAndValues],
    ) -> Tensor:
        """Read prompts from where they differ from the one before each.

        Args:
            prompts: Token ids.
            shared: Tokens that each takes over.
            held: The prompt before the first one, if any; it is used up, so that it takes no room
                beside what takes its place.
        """
        parts = [range(start, len(p)) for p, start in zip(prompts, shared, strict=True)]
        bounds = [0, *accumulate(len(part) for part in parts)]
        kept: list[list[KeysAndValues]] = [[] for _ in prompts]
        self._prompts += kept

        def attention(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            seen = torch.empty_like(query)
            nothing = key[:0].transpose(0, 1), value[:0].permute(1, 2, 0)
            keys, values = held.pop(0) if held else nothing
            for place, (first, stop) in enumerate(pairwise(bounds)):
                own = slice(first, stop)
                keys = torch.cat((keys[:, : shared[place]], key[own].transpose(0, 1)), dim=1)
                rows = torch.cat((values[..., : shared[place]].permute(2, 0, 1), value[own]))
                values = rows.permute(1, 2, 0).contiguous()
                kept[place].append((keys, values))
                seen[own] = F.scaled_dot_product_attention(
                    query[own].transpose(0, 1)[None],
                    keys[None],
                    rows.transpose(0, 1)[None],
                    attn_mask=causal_lower_right(stop - first, keys.shape[1]),
                    scale=1.0,
                    enable_gqa=True,
                )[0].transpose(0, 1)
            return seen

        ids = [prompts[p][at] for p, part in enumerate(parts) for at in part]
        positions = [at for part in parts for at in part]
        device = self.decoder.device
        hidden = self.decoder.hidden(
            torch.tensor(ids, device=device), torch.tensor(positions, device=device), attention
        )
        return hidden[torch.tensor(bounds[1:], device=device) - 1]

    def feed(self, rows: Continuation) -> Tensor:
        """Feed tokens into the next slots and return their last hidden states.

        Returns:
            Shape ``(rows, hidden)``.

        Raises:
            ValueError: If there are fewer free slots than tokens.
        """
        start, stop = self.num_fed, self.num_fed + len(rows.input_ids)
        if stop > self.capacity:
            raise ValueError(f"{stop} tokens do not fit into {self.capacity} slots")

        def attention(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            slots = self._slots[layer]
            slots[start:stop, 0] = key
            slots[start:stop, 1] = value
            return self._attend(layer, query, rows)

        positions = rows.depths.clone()
        for prompt, (first, last) in enumerate(pairwise(rows.bounds)):
            positions[first:last] += self._prompts[prompt][0][0].shape[1]
        hidden = self.decoder.hidden(rows.input_ids, positions, attention)
        self.num_fed = stop
        return hidden

    def forget(self, num_kept: int) -> None:
        """Free all slots but the first ones."""
        self.num_fed = num_kept

    def _attend(self, layer: int, query: Tensor, rows: Continuation) -> Tensor:
        """Attend to the prompt and to the branch apart, and join the two by their log-sums."""
        groups = query.view(len(query), self.decoder.num_key_value_heads, -1, query.shape[-1])
        seen, log_sums = self._attend_to_prompts(layer, groups, rows.bounds)
        # Selecting whole slots and multiplying head by head spares copies that cost more than both.
        branch = self._slots[layer].flatten(1).index_select(0, rows.path.flatten())
        branch = branch.view(*rows.path.shape, *self._slots.shape[2:])
        for head in range(groups.shape[1]):
            keys, values = branch[:, :, 0, head], branch[:, :, 1, head]
            scores = torch.bmm(groups[:, head], keys.transpose(1, 2)).float()
            if rows.missing is not None:
                scores.masked_fill_(rows.missing[:, None], -torch.inf)
            shares = torch.cat((log_sums[:, head], scores), dim=-1).softmax(dim=-1)
            shares = shares.to(values.dtype)
            prompt, own = shares[..., :1], torch.bmm(shares[..., 1:], values)
            seen[:, head] = torch.addcmul(own, prompt, seen[:, head])
        return seen.view_as(query)

    def _attend_to_prompts(
        self, layer: int, groups: Tensor, bounds: tuple[int, ...]
    ) -> tuple[Tensor, Tensor]:
        """Return what each row sees of its prompt, and the log of its weights' sum.

        Args:
            layer: From 0.
            groups: Queries by the key they share, ``(rows, key_value_heads, group, head_dim)``.
            bounds: Rows of each prompt.

        Returns:
            Shapes ``(rows, key_value_heads, group, head_dim)`` and, float32,
            ``(rows, key_value_heads, group, 1)``.
        """
        seen = torch.empty_like(groups)
        log_sums = groups.new_empty(*groups.shape[:-1], 1, dtype=torch.float32)
        for prompt, (start, stop) in enumerate(pairwise(bounds)):
            if start == stop:
                continue
            keys, values = self._prompts[prompt][layer]
            for head in range(len(keys)):
                part = groups[start:stop, head]
                scores = linear(part.reshape(-1, part.shape[-1]), keys[head]).float()
                weights = scores.softmax(dim=-1)
                # The greatest weight gives the sum without another pass of exponentials.
                log_sum = scores.amax(dim=-1) - weights.amax(dim=-1).log_()
                log_sums[start:stop, head] = log_sum.view(*part.shape[:-1], 1)
                seen[start:stop, head] = linear(weights.to(values.dtype), values[head]).view_as(
                    part
                )
        return seen, log_sums
