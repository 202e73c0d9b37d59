import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from tools.chat_tokenizer import train_tokenizer
from tools.small_world_text import public_documents

DOCUMENTS = list(public_documents(0, num_films=20, num_documents=120, personal_share=0.2))


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(DOCUMENTS, vocab_size=600, positions=128)


@given(text=st.text())
def test_the_tokenizer_gives_back_every_text(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == unicodedata.normalize("NFC", text)


def test_the_tokenizer_is_the_same_every_time(tokenizer: PreTrainedTokenizerFast) -> None:
    again = train_tokenizer(DOCUMENTS, vocab_size=600, positions=128)
    assert again.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()
    assert len(again) == 600


def test_a_year_is_one_token_and_special_tokens_are_not_learnt() -> None:
    documents = ["<|im_start|>Zinc Oboe (1994)", "<|im_start|>Iron Oboe (1994)", "in 1994"]
    vocabulary = train_tokenizer(documents, vocab_size=290, positions=128).get_vocab()
    assert "1994" in vocabulary
    assert not any("im_" in token for token in vocabulary.keys() - {"<|im_start|>", "<|im_end|>"})
