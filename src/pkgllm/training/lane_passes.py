"""One pass of the groups of many lanes through the model, and back."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pkgllm.lm.lanes.decoder import LaneBatch, LaneDecoder, Tape
from pkgllm.lm.lanes.group_attention import BlockedAttention, GroupAttention, GroupSpan
from pkgllm.lm.lanes.lora_factors import StackedFactors
from pkgllm.lm.lanes.padded_attention import PaddedAttention
from pkgllm.lm.lanes.stack import Lanes
from pkgllm.prompts.lane_packing import PackedLanes, num_tokens, pack_lanes
from pkgllm.training.lane_memory import PassCost, share_out
from pkgllm.training.log_probabilities import Branch


@dataclass(frozen=True, slots=True)
class ScoredPass:
    """Log-probabilities of a pass, and what its backward pass needs."""

    log_probs: Tensor
    """Of each completion, lane by lane, nats, float32. Shape ``(completions,)``."""
    bounds: tuple[int, ...]
    """Lane ``l`` has the completions ``bounds[l]:bounds[l + 1]``."""
    target_completions: Tensor
    tape: Tape | None
    num_tokens: int
    num_padding: int


def is_batched(decoder: LaneDecoder) -> bool:
    """Return whether lanes are padded to one length and multiplied in batches, as on a GPU."""
    return decoder.device.type != "cpu"


def branch_tokens(branch: Branch) -> int:
    """Return the tokens that a group takes with these completions."""
    group, completions = branch
    return num_tokens((group.prompt.token_ids, [c.token_ids for c in completions]))


def score_lanes(
    decoder: LaneDecoder,
    lanes: Sequence[Sequence[Branch]],
    factors: StackedFactors | None,
    *,
    checkpoint: bool = False,
) -> ScoredPass:
    """Score the completions of each lane's groups with the lane's adapter.

    Args:
        decoder: The model.
        lanes: Each lane's groups with the completions to score.
        factors: Of each lane; None for the base model alone, which has no backward pass.
        checkpoint: Whether to keep each layer's input alone and to compute the rest again.
    """
    packed = pack_lanes(
        [
            [(group.prompt.token_ids, [c.token_ids for c in own]) for group, own in branches]
            for branches in lanes
        ],
        equal=is_batched(decoder),
    )
    log_probs, tape = decoder.forward(
        _rows(packed, decoder),
        _attention(packed.groups, decoder, len(packed.input_ids)),
        factors,
        checkpoint=checkpoint,
    )
    completions = torch.tensor(packed.target_completions, device=decoder.device)
    bounds = [0]
    for branches in lanes:
        bounds.append(bounds[-1] + sum(len(own) for _, own in branches))
    return ScoredPass(
        log_probs.new_zeros(bounds[-1]).index_add_(0, completions, log_probs),
        tuple(bounds),
        completions,
        tape,
        len(packed.input_ids) - packed.num_padding,
        packed.num_padding,
    )


def differentiate(decoder: LaneDecoder, scored: ScoredPass, gradient: Tensor) -> None:
    """Write the gradients of the lanes' factors, from those of the log-probabilities."""
    assert scored.tape is not None
    decoder.backward(gradient[scored.target_completions], scored.tape)


def reference_scorer(
    decoder: LaneDecoder, memory_bytes: int
) -> Callable[[Sequence[Branch]], Tensor]:
    """Return what scores completions with the frozen base model.

    On a CPU each group goes through alone, so that its values depend on nothing else and are the
    same to the bit when a resumed run computes them again.
    """
    batched = is_batched(decoder)

    def score(branches: Sequence[Branch]) -> Tensor:
        tokens = [branch_tokens(branch) for branch in branches]
        cost = PassCost.of(decoder, longest_group=max(tokens), checkpoint=False, trains=False)
        if not batched:
            cost = replace(cost, most_rows=0)
        by_branch: dict[int, Tensor] = {}
        for part in share_out(tokens, cost, memory_bytes, equal=batched):
            scored = score_lanes(decoder, [[branches[index]] for index in part], None)
            log_probs = scored.log_probs.cpu()
            for lane, index in enumerate(part):
                by_branch[index] = log_probs[scored.bounds[lane] : scored.bounds[lane + 1]]
        return torch.cat([by_branch[index] for index in range(len(branches))])

    return score


def _rows(packed: PackedLanes, decoder: LaneDecoder) -> LaneBatch:
    def tensor(values: list[int]) -> Tensor:
        return torch.tensor(values, device=decoder.device)

    batched = is_batched(decoder)
    return LaneBatch(
        tensor(packed.input_ids),
        tensor(packed.positions),
        Lanes(packed.bounds, batched=batched),
        tensor(packed.sources),
        Lanes(packed.source_bounds, batched=batched),
        tensor(packed.target_rows),
        tensor(packed.target_ids),
    )


def _attention(groups: Sequence[GroupSpan], decoder: LaneDecoder, num_rows: int) -> GroupAttention:
    if is_batched(decoder):
        return PaddedAttention(
            groups, num_rows=num_rows, device=decoder.device, kernel=decoder.kernel
        )
    return BlockedAttention(
        groups,
        heads_per_key=decoder.num_heads // decoder.num_key_value_heads,
        device=decoder.device,
    )
