"""Pack the groups of many lanes into one flat row of tokens, each prompt once.

A group is its prompt, then every completion as a branch; position ids restart after the prompt for
each branch. Groups stand behind one another, lane after lane, without padding between them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from pkgllm.lm.lanes.group_attention import GroupSpan
from pkgllm.prompts.packing import Branches


@dataclass(slots=True)
class PackedLanes:
    """Groups as one row of tokens. All indices count from the first token of the first lane."""

    input_ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    """Of each token in its own sequence, from 0."""
    bounds: list[int] = field(default_factory=lambda: [0])
    """Lane ``l`` has the tokens ``bounds[l]:bounds[l + 1]``."""
    groups: list[GroupSpan] = field(default_factory=list)
    sources: list[int] = field(default_factory=list)
    """Tokens that predict something, lane by lane."""
    source_bounds: list[int] = field(default_factory=lambda: [0])
    """Lane ``l`` has the sources ``source_bounds[l]:source_bounds[l + 1]``."""
    target_rows: list[int] = field(default_factory=list)
    """For each predicted token, the index into ``sources``."""
    target_ids: list[int] = field(default_factory=list)
    target_completions: list[int] = field(default_factory=list)
    """The completion of each predicted token, counted over all lanes."""
    num_completions: int = 0
    num_padding: int = 0
    """Padding tokens."""


def pack_lanes(lanes: Sequence[Sequence[Branches]], *, equal: bool = False) -> PackedLanes:
    """Pack the groups of each lane.

    The last token of a completion is only ever predicted, so it is not an input.

    Args:
        lanes: The groups of each lane, at least one; prompts and completions are not empty.
        equal: Whether to pad lanes to the longest, so that products can be batched.

    Raises:
        ValueError: If a lane has no group, or a prompt or a completion is empty.

    Example:
        >>> packed = pack_lanes([[((5, 6), [(7, 8, 2), (9, 2)])]])
        >>> packed.input_ids, packed.positions
        ([5, 6, 7, 8, 9], [0, 1, 2, 3, 2])
        >>> [packed.input_ids[packed.sources[row]] for row in packed.target_rows]
        [6, 7, 8, 6, 9]
    """
    if not lanes or not all(lanes):
        raise ValueError("every lane needs at least one group")
    most_tokens = max(sum(map(num_tokens, groups)) for groups in lanes) if equal else 0
    packed = PackedLanes()
    for groups in lanes:
        for prompt, branches in groups:
            if not prompt or not all(branches):
                raise ValueError("every group needs a prompt and completions of at least one token")
            _append(packed, prompt, branches)
        _end_lane(packed, most_tokens)
    if equal:
        _fill_sources(packed)
    return packed


def num_tokens(group: Branches) -> int:
    """Return the tokens that a group takes: each prompt once, and no last one of a completion."""
    prompt, branches = group
    return len(prompt) + sum(len(branch) - 1 for branch in branches)


def _append(packed: PackedLanes, prompt: Sequence[int], branches: Sequence[Sequence[int]]) -> None:
    start = len(packed.input_ids)
    packed.input_ids += prompt
    packed.positions += range(len(prompt))
    prompt_source = len(packed.sources)
    packed.sources.append(len(packed.input_ids) - 1)
    ends = []
    for branch in branches:
        num_inputs, first_source = len(branch) - 1, len(packed.sources)
        first = len(packed.input_ids)
        packed.input_ids += branch[:-1]
        packed.positions += range(len(prompt), len(prompt) + num_inputs)
        packed.sources += range(first, first + num_inputs)
        packed.target_rows += [prompt_source, *range(first_source, first_source + num_inputs)]
        packed.target_ids += branch
        packed.target_completions += [packed.num_completions] * len(branch)
        packed.num_completions += 1
        ends.append(first + num_inputs)
    packed.groups.append(GroupSpan(start, start + len(prompt), tuple(ends)))


def _end_lane(packed: PackedLanes, most_tokens: int) -> None:
    missing = max(most_tokens - (len(packed.input_ids) - packed.bounds[-1]), 0)
    packed.input_ids += [0] * missing
    packed.positions += [0] * missing
    packed.num_padding += missing
    packed.bounds.append(len(packed.input_ids))
    packed.source_bounds.append(len(packed.sources))


def _fill_sources(packed: PackedLanes) -> None:
    """Repeat sources until every lane has as many; no target refers to a repeated one."""
    bounds = packed.source_bounds
    most = max(end - start for start, end in pairwise(bounds))
    lane_of_row = [lane for lane, (a, b) in enumerate(pairwise(bounds)) for _ in range(a, b)]
    packed.target_rows[:] = [
        row + lane_of_row[row] * most - bounds[lane_of_row[row]] for row in packed.target_rows
    ]
    packed.sources[:] = [
        source
        for start, end in pairwise(bounds)
        for source in packed.sources[start:end] + [packed.sources[end - 1]] * (most - (end - start))
    ]
    packed.source_bounds[:] = [lane * most for lane in range(len(bounds))]
