from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from pkgllm.errors import RunError
from pkgllm.lm.base_model import load_base_model
from tools.chat_tokenizer import train_tokenizer
from tools.pretraining import (
    Options,
    held_out_loss,
    learning_rate_of_step,
    make_model,
    pack_documents,
    pack_rows,
    pretrain,
    rows_of_step,
    summed_loss,
)
from tools.small_world_text import public_documents

DOCUMENTS = list(public_documents(0, num_films=20, num_documents=120, personal_share=0.2))
SMALL = Options(
    vocab_size=300,
    hidden_size=16,
    layers=1,
    heads=2,
    key_value_heads=1,
    head_size=8,
    intermediate_size=32,
    positions=1024,
    context=64,
    batch_size=4,
    steps=7,
    checkpoint_every=2,
    dtype="float32",
)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(DOCUMENTS, vocab_size=600, positions=128)


def _weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def test_a_stopped_run_that_goes_on_equals_one_that_was_not_stopped(tmp_path: Path) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    losses: list[tuple[int, float]] = []
    pretrain(DOCUMENTS, whole, SMALL, on_step=lambda step, loss: losses.append((step, loss)))
    resumed: list[tuple[int, float]] = []

    def stop_after_five(step: int, loss: float) -> None:
        resumed.append((step, loss))
        if step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pretrain(DOCUMENTS, stopped, SMALL, on_step=stop_after_five)
    assert not stopped.exists()
    pretrain(DOCUMENTS, stopped, SMALL, on_step=lambda step, loss: resumed.append((step, loss)))
    # Step 4 wrote the last checkpoint, so step 5 is taken twice, with the same loss.
    assert resumed == [*losses[:5], *losses[4:]]
    assert _weights(stopped) == _weights(whole)
    assert {path.name for path in tmp_path.iterdir()} == {"whole", "stopped"}


def test_another_seed_gives_another_model(tmp_path: Path) -> None:
    options = replace(SMALL, steps=1)
    pretrain(DOCUMENTS, tmp_path / "a", options)
    pretrain(DOCUMENTS, tmp_path / "b", replace(options, seed=1))
    assert _weights(tmp_path / "a") != _weights(tmp_path / "b")


@pytest.mark.slow
def test_training_lowers_the_held_out_loss(tmp_path: Path) -> None:
    losses: list[float] = []
    options = replace(SMALL, steps=60, checkpoint_every=10)
    pretrain(DOCUMENTS, tmp_path / "m", options, on_held_out=lambda _, loss: losses.append(loss))
    # Guessing evenly over 300 tokens costs ln 300 = 5.70 nats.
    assert len(losses) == 6
    assert losses[-1] < losses[0] < 5.8
    assert losses[-1] < 4.8


def test_the_output_is_a_base_model_that_speaks_chatml(tmp_path: Path) -> None:
    pretrain(DOCUMENTS, tmp_path / "model", SMALL)
    base = load_base_model(str(tmp_path / "model"), device="cpu")
    config = base.model.config
    assert config.model_type == "qwen3"
    assert base.model.get_input_embeddings().weight is base.model.lm_head.weight
    tokenizer: Any = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")
    assert tokenizer.padding_side == "left"
    assert tokenizer.model_max_length == base.max_positions == 1024
    assert config.eos_token_id == base.terminator_id == tokenizer.eos_token_id
    messages = [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]
    expected = "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n"
    assert tokenizer.apply_chat_template(messages, tokenize=False) == expected
    for thinking in ({}, {"enable_thinking": False}):
        asked = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True, **thinking
        )
        assert asked == expected + "<|im_start|>assistant\n"
    ids = tokenizer(expected, add_special_tokens=False)["input_ids"]
    assert ids.count(tokenizer.convert_tokens_to_ids("<|im_start|>")) == 2
    assert ids.count(tokenizer.eos_token_id) == 2
    assert tokenizer.decode(ids) == expected


@given(st.lists(st.integers(1, 40), min_size=1, max_size=30), st.integers(2, 16))
def test_packing_keeps_every_token_once_and_documents_apart(
    lengths: list[int], context: int
) -> None:
    ends = np.cumsum(lengths).tolist()
    documents = [
        list(range(end - length + 1, end + 1)) for end, length in zip(ends, lengths, strict=True)
    ]
    owner = {token: index for index, document in enumerate(documents) for token in document}
    rows = pack_rows(documents, context=context, padding=0)
    assert rows.token_ids.shape == rows.documents.shape
    assert rows.token_ids.shape[1] == context
    assert sorted(rows.token_ids[rows.documents > 0].tolist()) == list(range(1, ends[-1] + 1))
    assert not rows.token_ids[rows.documents == 0].any()
    for ids, numbers in zip(rows.token_ids, rows.documents, strict=True):
        for number in set(numbers.tolist()) - {0}:
            piece = ids[numbers == number].tolist()
            assert piece == list(range(piece[0], piece[0] + len(piece)))
            assert len({owner[token] for token in piece}) == 1


def test_packing_fills_rows() -> None:
    # 6 and 2 fill a row, and so do 5 and 3; longest first: 6 | 5 | 3 to the 5 | 2 to the 6.
    rows = pack_rows([[1] * 2, [2] * 3, [3] * 5, [4] * 6], context=8, padding=0)
    assert rows.token_ids.tolist() == [[4] * 6 + [1] * 2, [3] * 5 + [2] * 3]
    assert rows.documents.tolist() == [[1] * 6 + [2] * 2, [1] * 5 + [2] * 3]


def test_documents_in_a_row_do_not_see_each_other(tokenizer: PreTrainedTokenizerFast) -> None:
    model = make_model(SMALL, tokenizer)
    documents = [[5, 6, 7, 8], [9, 10, 11]]
    together = pack_rows(documents, context=8, padding=0)
    assert len(together.token_ids) == 1
    with torch.no_grad():
        loss, count = summed_loss(model, together, [0])
        apart = sum(
            float(model(input_ids=torch.tensor([ids]), labels=torch.tensor([ids])).loss)
            * (len(ids) - 1)
            for ids in documents
        )
    assert count == 5
    assert loss.item() == pytest.approx(apart, rel=1e-5)
    assert held_out_loss(model, together, 4) == pytest.approx(apart / 5, rel=1e-5)


def test_both_parts_hold_a_document_and_no_document_is_in_both(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    for share in (0.0, 0.3, 0.99):
        options = replace(SMALL, held_out_share=share, context=1024)
        training, held_out = pack_documents(DOCUMENTS, tokenizer, options)
        ends = [
            int((rows.token_ids[rows.documents > 0] == tokenizer.pad_token_id).sum())
            for rows in (training, held_out)
        ]
        assert min(ends) >= 1
        assert sum(ends) == len(DOCUMENTS)


def test_every_epoch_sees_every_row_once() -> None:
    # 10 steps of 3 rows are 3 epochs of 10 rows, and epochs end inside steps.
    drawn = np.concatenate(
        [rows_of_step(step, num_rows=10, batch_size=3, seed=0) for step in range(10)]
    )
    epochs = drawn.reshape(3, 10)
    assert all(sorted(epoch.tolist()) == list(range(10)) for epoch in epochs)
    assert not np.array_equal(epochs[0], epochs[1])


def test_step_sizes() -> None:
    options = replace(SMALL, steps=110, warmup_share=10 / 110, learning_rate=1.0)
    # A warm-up of 10 steps; half-way down the cosine is .1 + .9 / 2 = .55.
    assert learning_rate_of_step(0, options) == pytest.approx(0.1)
    assert learning_rate_of_step(9, options) == pytest.approx(1.0)
    assert learning_rate_of_step(60, options) == pytest.approx(0.55)
    assert learning_rate_of_step(110, options) == pytest.approx(0.1)


def test_other_options_or_documents_do_not_go_on_with_a_run(tmp_path: Path) -> None:
    def stop(step: int, loss: float) -> None:
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pretrain(DOCUMENTS, tmp_path / "model", SMALL, on_step=stop)
    for documents, options in (
        (DOCUMENTS, replace(SMALL, learning_rate=1.0)),
        (DOCUMENTS[1:], SMALL),
    ):
        with pytest.raises(RunError, match="an unfinished run with other options or text"):
            pretrain(documents, tmp_path / "model", options)
    pretrain(DOCUMENTS, tmp_path / "model", replace(SMALL, checkpoint_every=5))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vocab_size": 258}, "vocab_size must be at least 259, got 258"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"learning_rate": float("nan")}, "learning_rate must be finite and not negative, got nan"),
        ({"held_out_share": 1.0}, "must be below 1, got 0.05 and 1.0"),
        ({"heads": 3, "key_value_heads": 2}, "heads must be a multiple of key_value_heads"),
        ({"head_size": 7}, "head_size must be even, got 7"),
        ({"dtype": "int8"}, "dtype must be float32 or bfloat16, got 'int8'"),
    ],
)
def test_impossible_options_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Options(**change)
