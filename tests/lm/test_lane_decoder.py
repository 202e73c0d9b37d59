"""The reference is PEFT with autograd, one prompt with one completion in a pass of its own."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PeftModel
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from helpers.tiny_decoders import ROPE, tiny_decoder, with_random_adapter
from helpers.tiny_lanes import GroupShape, lane_shapes, random, random_lanes, rows_of
from pkgllm.errors import ModelError
from pkgllm.lm.adapter import adapter_state, load_adapter_state
from pkgllm.lm.decoder import KNOWN_MODELS
from pkgllm.lm.lanes.decoder import LaneDecoder
from pkgllm.lm.lanes.group_attention import BlockedAttention
from pkgllm.lm.lanes.lora_factors import StackedFactors
from pkgllm.lm.lanes.padded_attention import PaddedAttention
from pkgllm.prompts.lane_packing import pack_lanes
from pkgllm.prompts.packing import Branches

Lanes = Sequence[Sequence[Branches]]
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen3": ("qwen3", {}),
    "qwen3, tied, a key each": ("qwen3", {"tie_word_embeddings": True, "num_key_value_heads": 4}),
    "qwen3, one key for all, biases": (
        "qwen3",
        {"num_key_value_heads": 1, "head_dim": 6, "attention_bias": True},
    ),
    "qwen3, one layer": ("qwen3", {"num_hidden_layers": 1}),
    "qwen2": ("qwen2", {}),
    "qwen2, tied, three layers": ("qwen2", {"tie_word_embeddings": True, "num_hidden_layers": 3}),
    "llama": ("llama", {}),
    "llama, tied, biases, turned slower": (
        "llama",
        {
            "attention_bias": True,
            "mlp_bias": True,
            "tie_word_embeddings": True,
            "rope_parameters": ROPE,
            "rms_norm_eps": 0.1,
        },
    ),
}
TARGETS: dict[str, dict[str, Any]] = {
    "queries and values": {"target_modules": ["q_proj", "v_proj"]},
    "down": {"target_modules": ["down_proj"]},
    "keys and up": {"target_modules": ["k_proj", "up_proj"]},
    "the first layer": {"target_modules": ["o_proj", "gate_proj"], "layers_to_transform": [0]},
    "the last layer": {"target_modules": ["k_proj", "v_proj"], "layers_to_transform": [1]},
}
# Lanes of unequal length, with a prompt of one token and a completion that is one.
UNEQUAL = random_lanes([[(7, (3, 1, 4)), (1, (2, 2))], [(11, (5,))], [(3, (1,)), (2, (4, 2, 1))]])


def a_policy(
    kind: str = "qwen3", *, adapter: dict[str, Any] | None = None, **changes: Any
) -> PeftModel:
    """Make a policy that does not amplify rounding, as wilder ones do to whoever computes it."""
    base = tiny_decoder(kind, initializer_range=0.1, **changes)
    return with_random_adapter(base, **(adapter or {}))


def random_values(decoder: LaneDecoder, num_lanes: int) -> Tensor:
    return random(num_lanes, decoder.layout.num_values, seed=3) * 0.1


def ours(
    decoder: LaneDecoder,
    lanes: Lanes,
    values: Tensor,
    weights: Tensor,
    *,
    batched: bool = False,
    padded: bool = False,
    checkpoint: bool = False,
    block: int = 256,
) -> tuple[Tensor, Tensor]:
    """Return the log-probability of each target, and the gradients of their weighted sum."""
    packed = pack_lanes(lanes, equal=batched)
    num_rows = len(packed.input_ids)
    attention: PaddedAttention | BlockedAttention = (
        PaddedAttention(packed.groups, num_rows=num_rows, device=decoder.device)
        if padded
        else BlockedAttention(
            packed.groups,
            heads_per_key=decoder.num_heads // decoder.num_key_value_heads,
            device=decoder.device,
            block=block,
        )
    )
    # What is not written would show.
    gradients = torch.full(values.shape, torch.nan)
    factors = StackedFactors(values, gradients, decoder.scale, decoder.dtype)
    log_probs, tape = decoder.forward(
        rows_of(packed, batched=batched), attention, factors, checkpoint=checkpoint
    )
    assert tape is not None
    decoder.backward(weights, tape)
    return log_probs, gradients


def alone(policy: PeftModel, lane: Sequence[Branches]) -> Tensor:
    """Return the log-probability of each target by the definition."""
    actual = []
    for prompt, branches in lane:
        for branch in branches:
            logits = policy(torch.tensor([[*prompt, *branch[:-1]]])).logits[0, len(prompt) - 1 :]
            actual.append(logits.float().log_softmax(-1)[range(len(branch)), list(branch)])
    return torch.cat(actual)


def theirs(
    policy: PeftModel, decoder: LaneDecoder, lanes: Lanes, values: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor]:
    """As :func:`ours`, each lane by itself; what is not trained has no gradient: NaN."""
    parameters = {
        name.replace(".default", ""): parameter
        for name, parameter in policy.named_parameters()
        if "lora_" in name
    }
    trained = {name: own for name, own in parameters.items() if own.requires_grad}
    nothing = {name: torch.full_like(own, torch.nan) for name, own in parameters.items()}
    actual, gradients, start = [], [], 0
    for lane, own_values in zip(lanes, values, strict=True):
        load_adapter_state(policy, decoder.layout.to_state(own_values))
        log_probs = alone(policy, lane)
        stop = start + len(log_probs)
        total = (log_probs * weights[start:stop]).sum()
        found_gradients = torch.autograd.grad(total, list(trained.values()))
        state = nothing | dict(zip(trained, found_gradients, strict=True))
        gradients.append(decoder.layout.to_vector(state))
        actual.append(log_probs.detach())
        start = stop
    return torch.cat(actual), torch.stack(gradients)


def assert_same(actual: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> None:
    """Compare, with gradients to the largest one of their lane."""
    torch.testing.assert_close(actual[0], expected[0], rtol=1e-5, atol=1e-5)
    assert torch.equal(actual[1].isnan(), expected[1].isnan())
    difference = (actual[1] - expected[1]).nan_to_num().abs().amax(1)
    assert (difference <= 1e-5 * expected[1].nan_to_num().abs().amax(1)).all()


def random_weights(lanes: Lanes, seed: int = 5) -> Tensor:
    targets = sum(len(branch) for lane in lanes for _, branches in lane for branch in branches)
    return random(targets, seed=seed)


def assert_equals_peft(policy: PeftModel, lanes: Lanes = UNEQUAL) -> None:
    decoder, weights = LaneDecoder(policy), random_weights(lanes)
    values = random_values(decoder, len(lanes))
    expected = theirs(policy, decoder, lanes, values, weights)
    assert (expected[1].nan_to_num().abs().amax(1) > 0.1).all()
    before = {key: value.clone() for key, value in policy.state_dict().items()}
    for batched in (False, True):
        actual = ours(decoder, lanes, values, weights, batched=batched)
        assert_same(actual, expected)
        again = ours(decoder, lanes, values, weights, batched=batched, checkpoint=True)
        assert torch.equal(again[0], actual[0])
        torch.testing.assert_close(again[1], actual[1], rtol=0, atol=0, equal_nan=True)
    assert_same(ours(decoder, lanes, values, weights, batched=True, padded=True), expected)
    after = policy.state_dict()
    assert all(torch.equal(after[key], before[key]) for key in before)


def test_every_known_model_is_tried() -> None:
    assert {kind for kind, _ in SHAPES.values()} == set(KNOWN_MODELS)


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
def test_lanes_equal_peft_by_autograd(shape: str) -> None:
    kind, changes = SHAPES[shape]
    assert_equals_peft(a_policy(kind, **changes))


@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize("kind", KNOWN_MODELS)
def test_some_layers_may_be_adapted(kind: str, targets: str) -> None:
    assert_equals_peft(a_policy(kind, adapter=TARGETS[targets]))


@pytest.mark.parametrize(("rslora", "scale"), [(False, 5 / 3), (True, 5 / 3**0.5)])
def test_the_scale_is_that_of_peft(rslora: bool, scale: float) -> None:
    policy = a_policy(adapter={"use_rslora": rslora})
    assert LaneDecoder(policy).scale == pytest.approx(scale)
    assert_equals_peft(policy)


def test_a_frozen_first_factor_is_left_alone() -> None:
    policy = a_policy()
    assert LaneDecoder(policy).trains_lora_a
    for name, parameter in policy.named_parameters():
        if "lora_A" in name:
            parameter.requires_grad_(False)
    decoder = LaneDecoder(policy)
    assert not decoder.trains_lora_a
    weights = random_weights(UNEQUAL)
    _, gradients = ours(decoder, UNEQUAL, random_values(decoder, 3), weights)
    assert gradients[:, : decoder.layout.num_lora_a].isnan().all()
    assert not gradients[:, decoder.layout.num_lora_a :].isnan().any()
    assert_equals_peft(policy)


@pytest.fixture(scope="module", params=["qwen3", "qwen2"])
def policy(request: pytest.FixtureRequest) -> PeftModel:
    return a_policy(request.param)


@pytest.mark.slow
@settings(deadline=None, max_examples=12)
@given(
    shapes=lane_shapes,
    seed=st.integers(0, 2**32 - 1),
    batched=st.booleans(),
    block=st.sampled_from([1, 2, 3, 256]),
)
def test_any_lanes_equal_peft(
    policy: PeftModel, shapes: list[list[GroupShape]], seed: int, batched: bool, block: int
) -> None:
    lanes, decoder = random_lanes(shapes, seed=seed), LaneDecoder(policy)
    values, weights = random_values(decoder, len(lanes)), random_weights(lanes, seed)
    actual = ours(decoder, lanes, values, weights, batched=batched, block=block)
    assert_same(actual, theirs(policy, decoder, lanes, values, weights))


@pytest.mark.parametrize("batched", [False, True])
def test_lanes_that_share_an_adapter_have_gradients_of_their_own(
    policy: PeftModel, batched: bool
) -> None:
    # Lanes are examples: what each would have brought in a backward pass by itself.
    lanes = [[group] for lane in UNEQUAL for group in lane]
    decoder, weights = LaneDecoder(policy), random_weights(lanes)
    values = random_values(decoder, 1).expand(len(lanes), -1)
    assert values.stride(0) == 0
    expected = theirs(policy, decoder, lanes, values, weights)
    assert_same(ours(decoder, lanes, values, weights, batched=batched), expected)
    together = theirs(policy, decoder, [UNEQUAL[0]], values[:1], weights)
    torch.testing.assert_close(expected[1][:2].sum(0), together[1][0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_without_factors_there_is_the_base_model(shape: str, batched: bool) -> None:
    kind, changes = SHAPES[shape]
    policy = a_policy(kind, **changes)
    decoder, packed = LaneDecoder(policy), pack_lanes(UNEQUAL, equal=batched)
    attention = BlockedAttention(
        packed.groups,
        heads_per_key=decoder.num_heads // decoder.num_key_value_heads,
        device=decoder.device,
    )
    with policy.disable_adapter():
        expected = torch.cat([alone(policy, lane) for lane in UNEQUAL])
    for context in (nullcontext(), policy.disable_adapter()):
        with context:
            actual, tape = decoder.forward(rows_of(packed, batched=batched), attention, None)
        assert tape is None
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)
    tuned = torch.cat([alone(policy, lane) for lane in UNEQUAL])
    assert (tuned - expected).abs().max() > 0.1


def test_logits_exist_a_few_rows_at_once(policy: PeftModel) -> None:
    decoder, weights = LaneDecoder(policy), random_weights(UNEQUAL)
    values = random_values(decoder, len(UNEQUAL))
    expected = ours(decoder, UNEQUAL, values, weights)
    for rows_of_logits in (1, 4):
        actual = ours(LaneDecoder(policy, rows_of_logits=rows_of_logits), UNEQUAL, values, weights)
        assert_same(actual, expected)


def test_the_policys_own_adapter_plays_no_part(policy: PeftModel) -> None:
    decoder, weights = LaneDecoder(policy), random_weights(UNEQUAL)
    values = random_values(decoder, len(UNEQUAL))
    before = ours(decoder, UNEQUAL, values, weights)
    state = adapter_state(policy)
    load_adapter_state(policy, {key: value + 1 for key, value in state.items()})
    after = ours(decoder, UNEQUAL, values, weights)
    assert all(torch.equal(*pair) for pair in zip(before, after, strict=True))


def test_a_lane_is_moved_by_nothing_in_another(policy: PeftModel) -> None:
    decoder, weights = LaneDecoder(policy), random_weights(UNEQUAL)
    values = random_values(decoder, len(UNEQUAL))
    before = ours(decoder, UNEQUAL, values, weights)
    own = sum(len(branch) for _, branches in UNEQUAL[0] for branch in branches)
    # Numbers that spoil whatever they touch.
    values[1:] = torch.inf
    after = ours(decoder, UNEQUAL, values, weights)
    assert torch.equal(after[0][:own], before[0][:own])
    assert torch.equal(after[1][0], before[1][0])
    assert not after[0][own:].isfinite().any()


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("kind", KNOWN_MODELS)
def test_bfloat16_is_about_as_exact_as_peft_is(kind: str, shared: bool) -> None:
    base: Any = tiny_decoder(kind, initializer_range=0.1).bfloat16()
    policy = with_random_adapter(base)
    decoder, weights = LaneDecoder(policy), random_weights(UNEQUAL)
    assert decoder.dtype == torch.bfloat16
    values = random_values(decoder, 1 if shared else 3).expand(3, -1)
    actual = [
        ours(decoder, UNEQUAL, values, weights),
        ours(decoder, UNEQUAL, values, weights, batched=True, padded=True),
    ]
    rough = theirs(policy, decoder, UNEQUAL, values, weights)
    base.float()
    exact = theirs(policy, decoder, UNEQUAL, values, weights)
    for log_probs, gradients in actual:
        assert log_probs.dtype == gradients.dtype == torch.float32
        for one, other, true in zip((log_probs, gradients), rough, exact, strict=True):
            assert 0 < (one - true).norm() <= 3 * (other - true).norm()
            assert (one - true).norm() <= 0.05 * true.norm()


def test_other_models_are_refused() -> None:
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=9, n_embd=8, n_layer=1, n_head=2, n_positions=8))
    with pytest.raises(
        ModelError,
        match=r"llama, qwen2, qwen3 to train in lanes, got gpt2; set training\.engine to seque",
    ):
        LaneDecoder(with_random_adapter(gpt2, ["c_fc"], fan_in_fan_out=True))
    with pytest.raises(ModelError, match=r"full_attention and gelu; set training\.engine to s"):
        LaneDecoder(a_policy(hidden_act="gelu"))


@pytest.mark.parametrize("foreign", ["lm_head", "embed_tokens"])
def test_adapters_elsewhere_are_refused(foreign: str) -> None:
    policy = a_policy(adapter={"target_modules": ["q_proj", foreign]})
    with pytest.raises(
        ModelError,
        match=rf"adapter\.target_modules must be among q_proj, k_proj, .*, down_proj to train in "
        rf"lanes, got [a-z_.]*{foreign}; leave it out",
    ):
        LaneDecoder(policy)


@pytest.mark.parametrize("pattern", ["rank_pattern", "alpha_pattern"])
def test_adapters_that_differ_from_layer_to_layer_are_refused(pattern: str) -> None:
    policy = a_policy(adapter={pattern: {"q_proj": 4}})
    with pytest.raises(
        ModelError,
        match=r"must have one scale and one rank .*, got 2; use training\.engine sequential",
    ):
        LaneDecoder(policy)
