from collections.abc import Sequence
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PeftModel

from helpers.tiny_decoders import tiny_decoder, with_random_adapter
from helpers.tiny_lanes import GroupShape, lane_shapes, random_lanes, rows_of
from pkgllm.lm.adapter import adapter_state
from pkgllm.lm.lanes.decoder import LaneDecoder
from pkgllm.lm.lanes.group_attention import BlockedAttention
from pkgllm.lm.lanes.lora_factors import StackedFactors
from pkgllm.prompts.lane_packing import PackedLanes, num_tokens, pack_lanes
from pkgllm.prompts.packing import Branches, pack
from pkgllm.training.log_probabilities import completion_log_probabilities

tokens = st.lists(st.integers(0, 99), min_size=1, max_size=6).map(tuple)
# A group may have no completions, and the same one twice.
lanes_of_groups = st.lists(
    st.lists(st.tuples(tokens, st.lists(tokens, max_size=4)), min_size=1, max_size=3),
    min_size=1,
    max_size=4,
)


@pytest.mark.slow
@settings(max_examples=100)
@given(lanes_of_groups, st.booleans())
def test_every_token_has_its_place(lanes: list[list[Branches]], equal: bool) -> None:
    packed = pack_lanes(lanes, equal=equal)
    spans, target, completion = iter(packed.groups), 0, 0
    for number, lane in enumerate(lanes):
        row, last_row = packed.bounds[number : number + 2]
        for prompt, branches in lane:
            span = next(spans)
            assert (span.start, span.prompt_end) == (row, row + len(prompt))
            assert packed.input_ids[row : span.prompt_end] == list(prompt)
            assert packed.positions[row : span.prompt_end] == list(range(len(prompt)))
            for branch, (start, end) in zip(
                branches, pairwise((span.prompt_end, *span.branch_ends)), strict=True
            ):
                # Its last token is only ever predicted.
                assert packed.input_ids[start:end] == list(branch[:-1])
                positions = range(len(prompt), len(prompt) + len(branch) - 1)
                assert packed.positions[start:end] == list(positions)
                # The prompt's last token predicts its first, and each of its own the next.
                own = slice(target, target + len(branch))
                assert packed.target_ids[own] == list(branch)
                assert packed.target_completions[own] == [completion] * len(branch)
                sources = packed.target_rows[own]
                assert [packed.sources[source] for source in sources] == [
                    span.prompt_end - 1,
                    *range(start, end),
                ]
                first, last = packed.source_bounds[number : number + 2]
                assert all(first <= source < last for source in sources)
                target, completion = target + len(branch), completion + 1
            row = span.end
        # The rest is padding.
        assert set(packed.input_ids[row:last_row]) <= {0}
        assert (row == last_row) or equal
    assert next(spans, None) is None
    assert target == len(packed.target_ids) == len(packed.target_rows)
    assert target == len(packed.target_completions)
    assert completion == packed.num_completions
    assert packed.bounds[-1] == len(packed.input_ids) == len(packed.positions)
    assert packed.source_bounds[-1] == len(packed.sources)
    needed = sum(num_tokens(group) for lane in lanes for group in lane)
    assert packed.num_padding == len(packed.input_ids) - needed


def widths(bounds: Sequence[int]) -> list[int]:
    return [end - start for start, end in pairwise(bounds)]


def sources_of(packed: PackedLanes, lane: int) -> list[int]:
    """Return the sources of a lane, counted from its first token."""
    own = packed.sources[packed.source_bounds[lane] : packed.source_bounds[lane + 1]]
    return [source - packed.bounds[lane] for source in own]


@pytest.mark.slow
@settings(max_examples=100)
@given(lanes_of_groups)
def test_equal_lanes_are_as_long_as_the_longest(lanes: list[list[Branches]]) -> None:
    packed, filled = pack_lanes(lanes), pack_lanes(lanes, equal=True)
    for before, after in (
        (packed.bounds, filled.bounds),
        (packed.source_bounds, filled.source_bounds),
    ):
        assert widths(after) == [max(widths(before))] * len(lanes)
    for lane in range(len(lanes)):
        own, padded = sources_of(packed, lane), sources_of(filled, lane)
        # One source for each prompt and each input of a completion, in order, and none twice.
        assert own == sorted(set(own))
        assert padded == own + own[-1:] * (len(padded) - len(own))


def test_layout_of_two_unequal_lanes_by_hand() -> None:
    lanes: list[list[Branches]] = [[((5, 6), [(7, 8, 2), (9, 2)])], [((4,), [(2,)])]]
    packed = pack_lanes(lanes, equal=True)
    assert packed.input_ids == [5, 6, 7, 8, 9, 4, 0, 0, 0, 0]
    assert packed.positions == [0, 1, 2, 3, 2, 0, 0, 0, 0, 0]
    assert packed.bounds == [0, 5, 10]
    assert packed.num_padding == 4
    assert packed.sources == [1, 2, 3, 4, 5, 5, 5, 5]
    assert packed.source_bounds == [0, 4, 8]
    assert packed.target_rows == [0, 1, 2, 0, 3, 4]
    assert packed.target_ids == [7, 8, 2, 9, 2, 2]
    assert packed.target_completions == [0, 0, 0, 1, 1, 2]
    assert [(span.start, span.prompt_end, span.branch_ends) for span in packed.groups] == [
        (0, 2, (4, 5)),
        (5, 6, (6,)),
    ]


@pytest.fixture(scope="module")
def policy() -> PeftModel:
    return with_random_adapter(tiny_decoder())


@pytest.mark.slow
@pytest.mark.parametrize("equal", [False, True])
@settings(max_examples=20, deadline=None)
@given(shapes=lane_shapes, seed=st.integers(0, 2**32 - 1))
def test_completions_score_as_those_packed_by_group(
    policy: PeftModel, equal: bool, shapes: list[list[GroupShape]], seed: int
) -> None:
    lanes = random_lanes(shapes, seed=seed)
    packed = pack_lanes(lanes, equal=equal)
    decoder = LaneDecoder(policy)
    values = decoder.layout.to_vector(adapter_state(policy)).expand(len(lanes), -1)
    log_probs, _ = decoder.forward(
        rows_of(packed, batched=equal),
        BlockedAttention(packed.groups, heads_per_key=2, device=decoder.device),
        StackedFactors(values, None, decoder.scale, decoder.dtype),
    )
    found = torch.zeros(packed.num_completions).index_add(
        0, torch.tensor(packed.target_completions), log_probs
    )
    with torch.no_grad():
        expected = completion_log_probabilities(policy, pack([g for lane in lanes for g in lane]))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("lanes", [[], [[]], [[((1,), [(1,)])], []]])
def test_lanes_without_groups_are_refused(lanes: list[list[Branches]]) -> None:
    with pytest.raises(ValueError, match="every lane needs at least one group"):
        pack_lanes(lanes)


@pytest.mark.parametrize("group", [((), [(1,)]), ((1,), [(2,), ()])])
def test_empty_parts_are_refused(group: Branches) -> None:
    with pytest.raises(ValueError, match="a prompt and completions of at least one token"):
        pack_lanes([[((1,), [(1,)])], [group]])
