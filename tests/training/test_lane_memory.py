import re
from dataclasses import fields, is_dataclass
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import PeftModel

from helpers.tiny_cohorts import OBJECTIVES, peak_bytes, some_groups
from helpers.tiny_decoders import tiny_decoder, with_random_adapter
from pkgllm.errors import ModelError
from pkgllm.lm.adapter import adapter_state
from pkgllm.lm.lanes.decoder import LaneDecoder
from pkgllm.lm.lanes.lora_factors import StackedFactors
from pkgllm.training.batches import branches_of
from pkgllm.training.lane_memory import PassCost, share_out
from pkgllm.training.lane_passes import branch_tokens, differentiate, score_lanes

sizes = st.lists(st.integers(1, 60), max_size=14)
costs = st.builds(
    PassCost,
    fixed=st.integers(0, 40),
    per_row=st.integers(1, 5),
    per_lane=st.integers(0, 30),
    most_rows=st.none() | st.integers(1, 150),
)


def rows_of(part: list[int], rows: list[int], *, equal: bool) -> int:
    return len(part) * max(rows[lane] for lane in part) if equal else sum(rows[i] for i in part)


@given(sizes, costs, st.integers(0, 600), st.booleans())
def test_every_lane_goes_through_once_and_every_pass_fits(
    rows: list[int], cost: PassCost, more: int, equal: bool
) -> None:
    budget = cost.total(rows=max(rows, default=0), lanes=1) + more
    parts = share_out(rows, cost, budget, equal=equal)
    order = [lane for part in parts for lane in part]
    assert sorted(order) == list(range(len(rows)))
    assert order == sorted(order, key=lambda lane: (-rows[lane], lane))

    def fits(part: list[int]) -> bool:
        wanted = rows_of(part, rows, equal=equal)
        few = cost.most_rows is None or wanted <= cost.most_rows
        return few and cost.total(rows=wanted, lanes=len(part)) <= budget

    assert all(len(part) == 1 or fits(part) for part in parts)
    # No pass is opened while there is room in the one before it.
    assert not any(fits([*part, parts[i + 1][0]]) for i, part in enumerate(parts[:-1]))


def test_lanes_of_similar_length_go_together_by_hand() -> None:
    cost = PassCost(fixed=10, per_row=2, per_lane=5, most_rows=None)
    # 30 rows: 10 + 60 + 5; with 20 more rows: 10 + 100 + 10.
    assert share_out([20, 30, 3], cost, 120, equal=False) == [[1, 0], [2]]
    assert share_out([20, 30, 3], cost, 131, equal=False) == [[1, 0, 2]]
    # Filled up to the longest, two lanes are 60 rows.
    assert share_out([20, 30, 3], cost, 120, equal=True) == [[1], [0, 2]]
    assert share_out([20, 30, 3], cost, 140, equal=True) == [[1, 0], [2]]


def test_more_rows_than_help_are_not_put_together_but_never_refused() -> None:
    cost = PassCost(fixed=0, per_row=1, per_lane=0, most_rows=25)
    assert share_out([20, 30, 3, 2], cost, 10**9, equal=False) == [[1], [0, 2, 3]]


def test_a_lane_that_does_not_fit_alone_is_told_what_would_do() -> None:
    cost = PassCost(fixed=2**20, per_row=2**20, per_lane=0, most_rows=None)
    with pytest.raises(ModelError) as caught:
        share_out([63, 64, 3], cost, 2**26, equal=False)
    # 65 MiB are 0.0635 GiB.
    assert str(caught.value) == (
        "training.memory_gib must be at least 0.064 for a step of 64 tokens, got 0.0625; raise it, "
        "or lower training.groups_per_step or prompt.max_tokens"
    )


@given(
    sizes.filter(bool),
    st.integers(0, 2**31),
    st.integers(1, 2**27),
    st.integers(0, 2**30),
    st.booleans(),
)
def test_the_number_in_the_message_is_enough_and_hardly_more(
    rows: list[int], fixed: int, per_row: int, per_lane: int, equal: bool
) -> None:
    cost = PassCost(fixed, per_row, per_lane, most_rows=None)
    needed = cost.total(rows=max(rows), lanes=1)
    with pytest.raises(ModelError) as caught:
        share_out(rows, cost, needed - 1, equal=equal)
    found = re.search(r"at least (\d+\.\d{3}) for", str(caught.value))
    assert found is not None
    budget = int(float(found[1]) * 2**30)
    assert needed <= budget <= needed + 2**30 / 1000 + 1
    share_out(rows, cost, budget, equal=equal)


def bytes_held(part: Any, found: dict[int, int] | None = None) -> int:
    """Of all tensors inside of something, those that share memory once."""
    found = {} if found is None else found
    if isinstance(part, torch.Tensor):
        storage = part.untyped_storage()
        found[storage.data_ptr()] = storage.nbytes()
    elif is_dataclass(part):
        for field in fields(part):
            bytes_held(getattr(part, field.name), found)
    elif isinstance(part, list | tuple):
        for each in part:
            bytes_held(each, found)
    return sum(found.values())


MODELS: dict[str, dict[str, Any]] = {
    "qwen3, small rank": {"model_type": "qwen3", "lora_rank": 2},
    "qwen3, large rank": {"model_type": "qwen3", "lora_rank": 24},
    "llama, as many keys as queries": {
        "model_type": "llama",
        "lora_rank": 4,
        "num_key_value_heads": 4,
    },
    "qwen2, wide and deep": {
        "model_type": "qwen2",
        "lora_rank": 16,
        "hidden_size": 96,
        "intermediate_size": 256,
        "head_dim": 24,
        "num_hidden_layers": 5,
    },
}


def a_decoder(model_type: str, lora_rank: int, **changes: Any) -> tuple[PeftModel, LaneDecoder]:
    model = tiny_decoder(model_type, vocab_size=300, max_position_embeddings=256, **changes)
    policy = with_random_adapter(model, r=lora_rank)
    return policy, LaneDecoder(policy, rows_of_logits=32)


@pytest.mark.slow
@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize("model", MODELS)
def test_a_pass_takes_what_it_was_said_to_take(model: str, checkpoint: bool) -> None:
    policy, decoder = a_decoder(**MODELS[model])
    lanes = [branches_of(some_groups(3, seed=seed), OBJECTIVES["kto"]) for seed in range(2)]
    rows = sum(branch_tokens(branch) for lane in lanes for branch in lane)
    longest = max(branch_tokens(branch) for lane in lanes for branch in lane)
    cost = PassCost.of(decoder, longest_group=longest, checkpoint=checkpoint)
    untrained = PassCost.of(decoder, longest_group=longest, checkpoint=checkpoint, trains=False)
    values = decoder.layout.to_vector(adapter_state(policy)).repeat(2, 1)
    factors = StackedFactors(values, torch.zeros_like(values), decoder.scale, decoder.dtype)

    scored = score_lanes(decoder, lanes, factors, checkpoint=checkpoint)
    assert scored.tape is not None
    kept = rows * (cost.per_row - untrained.per_row)
    assert 0.5 * kept <= bytes_held(scored.tape.layers) <= kept

    def there_and_back() -> None:
        scored = score_lanes(decoder, lanes, factors, checkpoint=checkpoint)
        differentiate(decoder, scored, torch.ones_like(scored.log_probs))

    said = cost.fixed + rows * cost.per_row
    assert 0.4 * said <= peak_bytes(there_and_back) <= said
    of_base = untrained.total(rows=rows, lanes=2)
    assert 0.3 * of_base <= peak_bytes(lambda: score_lanes(decoder, lanes, None)) <= of_base


def test_a_lane_costs_its_values_gradients_and_moments() -> None:
    _, decoder = a_decoder("qwen3", 2)
    cost = PassCost.of(decoder, longest_group=9, checkpoint=False)
    assert cost.per_lane >= 4 * 4 * decoder.layout.num_values
    untrained = PassCost.of(decoder, longest_group=9, checkpoint=False, trains=False)
    assert untrained.per_lane == 0
