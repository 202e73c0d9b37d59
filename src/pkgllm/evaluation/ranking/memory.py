"""How much goes through a model at once so that ranking stays within a memory budget."""

import math
from dataclasses import dataclass

from pkgllm.errors import ModelError
from pkgllm.evaluation.ranking.trie import CatalogueTrie
from pkgllm.lm.decoder import Decoder

_MOST_CLIENTS = 8
_MOST_ROWS = {"cpu": 1024, "cuda": 16_384}
_MOST_LOGITS = {"cpu": 256, "cuda": 4096}
"""More does not make a pass faster: on a CPU it leaves the caches, on a GPU it fills it already."""


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """What exists at once while a catalogue is ranked."""

    clients: int
    """Clients whose prompts are held together."""
    rows: int
    """Nodes of the trie in one pass."""
    logits: int
    """Rows of logits, each as long as the vocabulary."""
    capacity: int
    """Nodes of the trie whose keys and values are held."""


def plan_memory(
    decoder: Decoder, trie: CatalogueTrie, *, longest_prompt: int, budget: int
) -> MemoryPlan:
    """Divide a budget: a quarter for a pass, an eighth for logits, the rest for keys and values.

    As many clients are held together as have room for their prompts and the whole trie each, up to
    a limit; where one has no such room, parts of the trie are visited one after the other. The
    model's own parameters are not counted.

    Raises:
        ModelError: If the budget cannot hold one prompt and the longest title.
    """
    kind = decoder.device.type
    itemsize = decoder.dtype.itemsize
    key_values = 2 * decoder.num_key_value_heads * decoder.head_dim * itemsize
    slot = decoder.num_layers * key_values
    attended = longest_prompt + trie.longest_input
    row = (
        # Hidden states, heads and the two arms of the MLP, some of them twice for a moment.
        itemsize * 4 * (decoder.hidden_size + decoder.num_heads * decoder.head_dim)
        + itemsize * 3 * decoder.intermediate_size
        # Scores in float32 and their exponentials, and what a node's branch holds.
        + 8 * decoder.num_heads * attended
        + 2 * key_values * trie.longest_input
    )
    slots = budget * 5 // 8 // slot
    rows = budget // 4 // row
    logits = budget // 8 // (8 * decoder.vocab_size)
    if slots < attended or min(rows, logits) < 1:
        least = max(math.ceil(slot * attended * 8 / 5), row * 4, 64 * decoder.vocab_size)
        # Rounded up, so that the advised value is enough.
        least_gib = math.ceil(1000 * least / 2**30) / 1000
        raise ModelError(
            f"evaluation.memory_gib must be at least {least_gib:.3f} to rank with prompts of "
            f"{longest_prompt} tokens, got {budget / 2**30:.6g}; raise it, or lower "
            "prompt.max_tokens"
        )
    whole = longest_prompt + len(trie.inputs)
    clients = min(max(slots // whole, 1), _MOST_CLIENTS)
    return MemoryPlan(
        clients=clients,
        rows=min(rows, _MOST_ROWS.get(kind, _MOST_ROWS["cuda"])),
        logits=min(logits, _MOST_LOGITS.get(kind, _MOST_LOGITS["cuda"])),
        capacity=min(slots - clients * longest_prompt, clients * len(trie.inputs)),
    )
