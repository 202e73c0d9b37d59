from contextlib import nullcontext
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel

from helpers.tiny_decoders import MAX_POSITIONS, ROPE, VOCABULARY, tiny_decoder, with_random_adapter
from pkgllm.errors import ModelError
from pkgllm.lm.decoder import KNOWN_MODELS, Decoder

SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen3": ("qwen3", {}),
    "qwen3, one key for all": ("qwen3", {"num_key_value_heads": 1, "head_dim": 6}),
    "qwen3, a key each, tied": ("qwen3", {"num_key_value_heads": 4, "tie_word_embeddings": True}),
    "qwen2": ("qwen2", {}),
    "llama": ("llama", {}),
    "llama, biases, turned slower": (
        "llama",
        {"attention_bias": True, "mlp_bias": True, "rope_parameters": ROPE, "rms_norm_eps": 0.1},
    ),
}


class Masked:
    """Attention by the book: each row sees the rows that a mask of shape (rows, rows) names."""

    def __init__(self, mask: Tensor) -> None:
        self.mask = mask
        self.layers: list[int] = []

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        self.layers.append(layer)
        group = query.shape[1] // key.shape[1]
        keys, values = (heads.repeat_interleave(group, dim=1) for heads in (key, value))
        scores = torch.einsum("qhd,khd->hqk", query.float(), keys.float())
        weights = scores.masked_fill(~self.mask, -torch.inf).softmax(dim=-1)
        return torch.einsum("hqk,khd->qhd", weights, values.float()).to(value.dtype)


def causal(num_rows: int) -> Tensor:
    return torch.ones(num_rows, num_rows, dtype=torch.bool).tril()


def ours(decoder: Decoder, ids: Tensor, positions: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return hidden states, and every token's log-probability after every row."""
    hidden = decoder.hidden(ids, positions, Masked(mask))
    count = len(ids)
    actual = decoder.log_probs(
        hidden,
        [VOCABULARY * row for row in range(count + 1)],
        torch.arange(count).repeat_interleave(VOCABULARY),
        torch.arange(VOCABULARY).repeat(count),
        rows_at_once=3,
    )
    return hidden, actual.view(count, VOCABULARY)


def theirs(
    model: PreTrainedModel | PeftModel, ids: Tensor, positions: Tensor, mask: Tensor
) -> tuple[Tensor, Tensor]:
    actual = model(
        input_ids=ids[None],
        position_ids=positions[None],
        attention_mask=mask[None, None],
        use_cache=False,
        output_hidden_states=True,
    )
    return actual.hidden_states[-1][0], actual.logits[0].float().log_softmax(dim=-1)


def sequence(seed: int, length: int = 20) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(VOCABULARY, (length,), generator=generator), torch.arange(length)


def assert_same(actual: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> None:
    for one, other in zip(actual, expected, strict=True):
        assert (one - other).abs().max() <= 1e-5 * other.abs().max()


@pytest.fixture(scope="module", params=SHAPES)
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    kind, changes = SHAPES[request.param]
    return tiny_decoder(kind, **changes)


def test_every_known_model_is_tried() -> None:
    assert {kind for kind, _ in SHAPES.values()} == set(KNOWN_MODELS)


@torch.inference_mode()
def test_hidden_states_and_log_probs_equal_those_of_transformers(model: PreTrainedModel) -> None:
    before = {key: value.clone() for key, value in model.state_dict().items()}
    ids, positions = sequence(0)
    decoder, mask = Decoder(model), causal(len(ids))
    assert_same(ours(decoder, ids, positions, mask), theirs(model, ids, positions, mask))
    after = model.state_dict()
    assert all(torch.equal(after[key], before[key]) for key in before)


@pytest.mark.slow
@settings(deadline=None, max_examples=25)
@given(
    st.lists(
        st.tuples(st.integers(0, VOCABULARY - 1), st.integers(0, MAX_POSITIONS - 1)),
        min_size=1,
        max_size=12,
    ),
    st.integers(0, 2**32 - 1),
)
@torch.inference_mode()
def test_any_positions_and_any_mask_will_do(
    model: PreTrainedModel, tokens: list[tuple[int, int]], seed: int
) -> None:
    # As in a catalogue: positions repeat and jump, and rows see some of those before them.
    ids, positions = torch.tensor(tokens).T
    generator = torch.Generator().manual_seed(seed)
    mask = (torch.rand(len(ids), len(ids), generator=generator) < 0.5).tril()
    mask |= torch.eye(len(ids), dtype=torch.bool)
    actual = ours(Decoder(model), ids, positions, mask)
    expected = theirs(model, ids, positions, mask)
    assert_same(actual, expected)


@torch.inference_mode()
def test_attention_is_asked_once_in_every_layer_in_order() -> None:
    model = tiny_decoder(num_hidden_layers=3)
    attention = Masked(causal(4))
    Decoder(model).hidden(torch.arange(4), torch.arange(4), attention)
    assert attention.layers == [0, 1, 2]


@pytest.mark.parametrize("targets", ["all-linear", ["q_proj", "v_proj"], ["down_proj"]])
@pytest.mark.parametrize("kind", KNOWN_MODELS)
@torch.inference_mode()
def test_an_adapter_is_on_or_off(kind: str, targets: str | list[str]) -> None:
    base = tiny_decoder(kind)
    ids, positions = sequence(1)
    mask = causal(len(ids))
    untuned = theirs(base, ids, positions, mask)
    policy = with_random_adapter(base, targets, lora_dropout=0.5, use_rslora=kind == "llama")
    tuned = theirs(policy, ids, positions, mask)
    assert (tuned[1] - untuned[1]).abs().max() > 0.1
    before = {key: value.clone() for key, value in policy.state_dict().items()}
    # Dropout belongs to training, and whether PEFT's own switch is on is not asked.
    policy.train()
    for context in (nullcontext(), policy.disable_adapter()):
        with context:
            on, off = Decoder(policy), Decoder(policy, with_adapter=False)
            assert_same(ours(on, ids, positions, mask), tuned)
            assert_same(ours(off, ids, positions, mask), untuned)
    after = policy.state_dict()
    assert all(torch.equal(after[key], before[key]) for key in before)


@torch.inference_mode()
def test_a_decoder_keeps_a_float32_adapter_as_it_was_made() -> None:
    policy = with_random_adapter(tiny_decoder())
    ids, positions = sequence(2)
    mask = causal(len(ids))
    decoder, old = Decoder(policy), theirs(policy, ids, positions, mask)
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            parameter.mul_(2)
    assert_same(ours(decoder, ids, positions, mask), old)
    new = theirs(policy, ids, positions, mask)
    assert (new[1] - old[1]).abs().max() > 0.1
    assert_same(ours(Decoder(policy), ids, positions, mask), new)


def mean_error(actual: tuple[Tensor, Tensor], exact: tuple[Tensor, Tensor]) -> list[float]:
    pairs = zip(actual, exact, strict=True)
    return [float((one.float() - other).abs().mean()) for one, other in pairs]


@pytest.mark.parametrize("adapted", [False, True])
@pytest.mark.parametrize("kind", KNOWN_MODELS)
@torch.inference_mode()
def test_bfloat16_is_as_exact_as_transformers_is(kind: str, adapted: bool) -> None:
    model: Any = tiny_decoder(kind).bfloat16()
    ids, positions = sequence(3, 40)
    mask = causal(len(ids))
    if adapted:
        model = with_random_adapter(model)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    decoder = Decoder(model)
    assert decoder.dtype == torch.bfloat16
    actual, expected = ours(decoder, ids, positions, mask), theirs(model, ids, positions, mask)
    assert actual[0].dtype == torch.bfloat16
    assert actual[1].dtype == torch.float32
    after = model.state_dict()
    assert all(torch.equal(after[key], before[key]) for key in before)
    exact = theirs(model.float(), ids, positions, mask)
    for own, other in zip(mean_error(actual, exact), mean_error(expected, exact), strict=True):
        assert 0 < own <= 1.2 * other


@torch.inference_mode()
def test_an_adapter_that_the_base_would_round_away_counts_in_bfloat16() -> None:
    model: Any = tiny_decoder().bfloat16()
    policy = with_random_adapter(model)
    layers: list[Any] = [module for module in policy.modules() if isinstance(module, LoraLayer)]
    assert len(layers) == 14
    for layer in layers:
        weight = layer.get_base_layer().weight
        weight.copy_(weight.sign() / 4)
        first, second = (
            factors["default"].weight.mul_(2.0**-6) for factors in (layer.lora_A, layer.lora_B)
        )
        change = layer.scaling["default"] * second @ first
        assert torch.equal((weight + change).bfloat16(), weight)
    ids, positions = sequence(4)
    mask = causal(len(ids))
    on, off = (
        ours(Decoder(policy, with_adapter=counts), ids, positions, mask) for counts in (True, False)
    )
    assert ((on[0] != off[0]).any(dim=-1)).all()
    assert (on[1] != off[1]).float().mean() > 0.9


@torch.inference_mode()
def test_log_probs_of_uneven_rows(model: PreTrainedModel) -> None:
    ids, positions = sequence(5, 7)
    mask = causal(7)
    decoder = Decoder(model)
    hidden, every = ours(decoder, ids, positions, mask)
    offsets = [0, 0, 3, 3, 4, 9, 9, 10]
    rows = torch.repeat_interleave(torch.arange(7), torch.tensor(offsets).diff())
    tokens = torch.arange(10) * 5
    for rows_at_once in (1, 2, 3, 7, 100):
        actual = decoder.log_probs(hidden, offsets, rows, tokens, rows_at_once=rows_at_once)
        torch.testing.assert_close(actual, every[rows, tokens])
    nothing = decoder.log_probs(hidden[:0], [0], rows[:0], tokens[:0], rows_at_once=4)
    assert (nothing.shape, nothing.dtype) == ((0,), torch.float32)


def test_other_types_of_models_are_refused() -> None:
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=9, n_embd=8, n_layer=1, n_head=2, n_positions=8))
    with pytest.raises(
        ModelError, match=r"must be one of llama, qwen2, qwen3 to rank a catalogue, got gpt2; cho"
    ):
        Decoder(gpt2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1},
            "got full_attention, sliding_attention and silu; choose another base model",
        ),
        ({"hidden_act": "gelu"}, "got full_attention and gelu; choose another base model"),
    ],
)
def test_what_a_decoder_does_not_compute_is_refused(changes: dict[str, Any], message: str) -> None:
    model = tiny_decoder(**changes)
    for refused in (model, with_random_adapter(model)):
        with pytest.raises(ModelError, match=message):
            Decoder(refused)
