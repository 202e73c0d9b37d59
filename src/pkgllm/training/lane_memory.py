"""How many rows go through the model at once, so that training stays within a memory budget."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pkgllm.errors import ModelError
from pkgllm.lm.lanes.decoder import LaneDecoder

_MOST_ROWS = {"cpu": 2048}
"""More rows leave a CPU's caches and make a pass no faster, and cost memory."""


@dataclass(frozen=True, slots=True)
class PassCost:
    """What a pass takes beside the model's parameters, bytes."""

    fixed: int
    per_row: int
    per_lane: int
    most_rows: int | None
    """Rows above which a pass does not become faster; None for no limit."""

    @classmethod
    def of(
        cls,
        decoder: LaneDecoder,
        *,
        longest_group: int,
        checkpoint: bool,
        trains: bool = True,
        num_terms: int = 0,
    ) -> "PassCost":
        """Count what a decoder keeps for the backward pass and what it needs at one moment.

        Args:
            decoder: The model.
            longest_group: Tokens of a prompt with its branches.
            checkpoint: Whether only each layer's input is kept.
            trains: Whether a backward pass follows; without one nothing is kept.
            num_terms: Terms that are added to gradients; each keeps a vector for each lane.
        """
        itemsize = decoder.dtype.itemsize
        heads = decoder.num_heads * decoder.head_dim
        keys = decoder.num_key_value_heads * decoder.head_dim
        hidden, intermediate = decoder.hidden_size, decoder.intermediate_size
        low = sum(slot.lora_rank for slot in decoder.layout.slots.values()) // decoder.num_layers
        # A GPU's attention keeps groups padded by up to a third.
        filled = 1 if decoder.device.type == "cpu" else 4 / 3
        attended = math.ceil(filled * (2 * heads + 2 * keys))
        layer = itemsize * (2 * hidden + heads + 2 * keys + attended + 2 * intermediate + low)
        layer += itemsize * decoder.num_heads * longest_group
        # The inverses of the normalisations, which are float32 always.
        layer += 4 * (2 + decoder.num_heads + decoder.num_key_value_heads)
        moment = itemsize * (6 * hidden + 4 * heads + 5 * intermediate)
        kept = itemsize * hidden if checkpoint else layer
        return cls(
            fixed=4 * 3 * decoder.rows_of_logits * decoder.vocab_size,
            per_row=moment + layer + (decoder.num_layers * kept if trains else 0),
            # Values, gradients, two moments, and two more while a step is computed.
            per_lane=4 * (6 + num_terms) * decoder.layout.num_values if trains else 0,
            most_rows=_MOST_ROWS.get(decoder.device.type),
        )

    def total(self, *, rows: int, lanes: int) -> int:
        """Return the bytes of a pass."""
        return self.fixed + rows * self.per_row + lanes * self.per_lane


def share_out(rows: Sequence[int], cost: PassCost, budget: int, *, equal: bool) -> list[list[int]]:
    """Divide lanes into passes that fit into the budget, lanes of similar length together.

    Returns:
        The indices of each pass's lanes, longest first.

    Raises:
        ModelError: If a lane alone does not fit.

    Example:
        >>> cost = PassCost(fixed=0, per_row=1, per_lane=0, most_rows=None)
        >>> share_out([3, 9, 4], cost, 10, equal=False)
        [[1], [2, 0]]
    """
    order = sorted(range(len(rows)), key=lambda lane: (-rows[lane], lane))
    passes: list[list[int]] = []
    taken = 0
    for lane in order:
        alone = cost.total(rows=rows[lane], lanes=1)
        if alone > budget:
            # Rounded up, so that the number is enough.
            raise ModelError(
                f"training.memory_gib must be at least {math.ceil(alone / 2**30 * 1000) / 1000:.3f}"
                f" for a step of {rows[lane]} tokens, got {budget / 2**30:.6g}; raise it, or lower "
                "training.groups_per_step or prompt.max_tokens"
            )
        if passes:
            longest = rows[passes[-1][0]]
            more = (len(passes[-1]) + 1) * longest if equal else taken + rows[lane]
            fits = cost.total(rows=more, lanes=len(passes[-1]) + 1) <= budget
            if fits and (cost.most_rows is None or more <= cost.most_rows):
                passes[-1].append(lane)
                taken += rows[lane]
                continue
        passes.append([lane])
        taken = rows[lane]
    return passes
