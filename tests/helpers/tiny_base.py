"""A random Qwen3 of a few thousand parameters, with a tokenizer, a chat template and a writer."""

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from pkgllm.lm.base_model import BaseModel, load_base_model
from pkgllm.prompts.prompts import PromptWriter

CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_tiny_base(folder: Path, *, seed: int = 0, hidden_size: int = 32) -> None:
    """Write a random base model whose outputs are far from uniform, so that tests can tell."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["The user liked: The Last Harbour (1995)."], trainer)
    PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=CHAT_TEMPLATE,
        model_max_length=1024,
    ).save_pretrained(folder)
    config = Qwen3Config(
        vocab_size=len(tokenizer.get_vocab()),
        hidden_size=hidden_size,
        intermediate_size=2 * hidden_size,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=hidden_size // 2,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        eos_token_id=2,
        pad_token_id=0,
        initializer_range=0.2,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        Qwen3ForCausalLM(config).save_pretrained(folder)


@pytest.fixture(scope="session")
def tiny_base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny-base")
    write_tiny_base(folder)
    return folder


@pytest.fixture
def tiny_base(tiny_base_folder: Path) -> BaseModel:
    """A fresh copy, because an adapter changes its layers in place."""
    return load_base_model(str(tiny_base_folder), device="cpu")


@pytest.fixture(scope="session")
def prose_writer(tiny_base_folder: Path) -> PromptWriter:
    """A writer with room for every graph, so that no fact is left out."""
    return PromptWriter(
        AutoTokenizer.from_pretrained(tiny_base_folder),
        form="prose",
        instruction="",
        request="Recommend movies to me.",
        max_tokens=100_000,
    )
