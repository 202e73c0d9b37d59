"""Per-example gradients: every example is a lane, so its gradient is that lane's.

No hook and no copy of the model is needed. An example is one group, the privacy unit ``example``.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pkgllm.lm.lanes.decoder import LaneDecoder
from pkgllm.lm.lanes.lora_factors import StackedFactors
from pkgllm.objectives.objective import Objective
from pkgllm.prompts.groups import Group
from pkgllm.training.batches import branches_of
from pkgllm.training.lane_losses import lane_losses
from pkgllm.training.lane_memory import PassCost, share_out
from pkgllm.training.lane_passes import branch_tokens, differentiate, is_batched, score_lanes
from pkgllm.training.reference import ReferenceColumn


@dataclass(frozen=True, slots=True)
class ExampleGradients:
    """Some examples of a batch. All of it is private."""

    indices: tuple[int, ...]
    """Which examples, by their place in the batch."""
    gradients: Tensor
    """Of each example's own loss, by the adapter's vector. Shape ``(examples, values)``, float32.
    Overwritten when the next part is computed."""
    losses: tuple[float | Exception, ...]
    """Of each example, or the exception raised in its place; the gradient is then 0, as it is where
    the loss is not finite."""


def example_gradients(
    decoder: LaneDecoder,
    values: Tensor,
    groups: Sequence[Group],
    objective: Objective,
    reference: ReferenceColumn,
    *,
    memory_bytes: int,
    kl_baseline: float | None = None,
) -> Iterator[ExampleGradients]:
    """Yield the gradient of every example by itself, as many at once as fit into the memory.

    ``values`` is the adapter as one vector, shape ``(values,)``; each group is one example.

    An objective that couples the examples of a batch is evaluated on each example alone.

    Raises:
        ModelError: If a single example does not fit into the memory.
    """
    if not groups:
        return
    lanes = [branches_of([group], objective) for group in groups]
    tokens = [branch_tokens(branch) for (branch,) in lanes]
    cost = PassCost.of(decoder, longest_group=max(tokens), checkpoint=False)
    parts = share_out(tokens, cost, memory_bytes, equal=is_batched(decoder))
    shared = values.to(decoder.device)
    gradients = torch.zeros(max(map(len, parts)), len(values), device=decoder.device)
    for part in parts:
        of_part = gradients[: len(part)].zero_()
        factors = StackedFactors(
            shared.expand(len(part), -1), of_part, decoder.scale, decoder.dtype
        )
        together = [lanes[index] for index in part]
        if objective.needs_reference:
            # Before the pass, so that the two never need memory at the same time.
            reference.log_probabilities([branch for lane in together for branch in lane])
        scored = score_lanes(decoder, together, factors)
        losses, gradient = lane_losses(together, scored, objective, reference, kl_baseline)
        differentiate(decoder, scored, gradient)
        for lane, loss in enumerate(losses):
            if isinstance(loss, Exception) or not math.isfinite(loss):
                # NaN times 0 is NaN.
                of_part[lane] = 0
        yield ExampleGradients(tuple(part), of_part, tuple(losses))
