"""A base model of Qwen3-0.6B's shape for a GPU, and what of the GPU's matrix rate is used."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from torch import nn
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from transformers import (
    AutoModelForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
)

from pkgllm.lm.adapter import AdapterState
from pkgllm.lm.base_model import BaseModel
from pkgllm.lm.chat_template import ChatTemplate
from pkgllm.training.cohort import LaneTrainer
from training_bench.measure import Clock, wait_for
from training_bench.workload import LEARNING_RATE, SEED

_END, _PADDING = "<|im_end|>", "<|endoftext|>"


def random_qwen3(device: str) -> BaseModel:
    """Return a bfloat16 model with exactly the shape of Qwen3-0.6B and random parameters.

    Source of the shape: ``config.json`` of Qwen/Qwen3-0.6B.
    """
    config = Qwen3Config(
        vocab_size=151_936,
        hidden_size=1024,
        intermediate_size=3072,
        num_hidden_layers=28,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=128,
        max_position_embeddings=40_960,
        rope_parameters={"rope_type": "default", "rope_theta": 1_000_000.0},
        rms_norm_eps=1e-6,
        tie_word_embeddings=True,
        eos_token_id=1,
        pad_token_id=0,
    )
    with torch.random.fork_rng(), torch.device(device):
        torch.manual_seed(SEED)
        # transformers leaves this function untyped.
        model = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
            config, dtype=torch.bfloat16, attn_implementation="sdpa"
        )
    model.requires_grad_(False).train(False)
    tokenizer = number_tokenizer(config.vocab_size)
    return BaseModel("Qwen3-0.6B, random", model, tokenizer, ChatTemplate(tokenizer), {})


def number_tokenizer(vocab_size: int) -> PreTrainedTokenizerFast:
    """Return a tokenizer whose word ``" 17"`` is token 17; tokens 0 and 1 pad and terminate."""
    words = {f" {number}": number for number in range(2, vocab_size)}
    tokenizer = Tokenizer(models.WordLevel({_PADDING: 0, _END: 1, **words}, unk_token=_PADDING))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r" \d+"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        eos_token=_END,
        pad_token=_PADDING,
        chat_template="{% for message in messages %}{{ message.content }}{% endfor %}",
    )


def matrix_rate(device: torch.device, dtype: torch.dtype, *, size: int, repeats: int = 20) -> float:
    """Measure the product of two large square matrices.

    Returns:
        Floating point operations a second; the best of three times ``repeats`` products.
    """
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    fastest = float("inf")
    for _ in range(4):  # the first starts the libraries and is never the fastest
        wait_for(device)
        start = time.perf_counter()
        for _ in range(repeats):
            torch.mm(left, right)
        wait_for(device)
        fastest = min(fastest, time.perf_counter() - start)
    return 2 * size**3 * repeats / fastest


def frozen_operations(model: nn.Module, tokens: int) -> int:
    """Return the operations of a training step in the frozen linear layers of a decoder.

    A token meets every matrix twice, on the way there and on the way back, and a product takes two
    operations per number of the matrix. Attention, adapters and the LM head come on top.
    """
    head = getattr(model, "lm_head", None)
    matrices = [m for m in model.modules() if isinstance(m, nn.Linear) and m is not head]
    return 2 * 2 * tokens * sum(matrix.weight.numel() for matrix in matrices)


def lane_use(
    trainer: LaneTrainer,
    model: PreTrainedModel,
    clients: Sequence[str],
    start: AdapterState,
    *,
    matrix_size: int,
) -> dict[str, Any]:
    """Return what share of the matrix rate a cohort's later rounds use, and what the rest is.

    Args:
        trainer: Trains the cohort.
        model: The base model; its type and device are those of the measured matrix product.
        clients: The cohort.
        start: What each client receives.
        matrix_size: Rows and columns of the matrices of that product.
    """
    clock = Clock(model.device)

    def one_round() -> object:
        return trainer(dict.fromkeys(clients, start), round_num=2, learning_rate=LEARNING_RATE)

    one_round()  # after it the reference log-probabilities are there
    before = trainer.count.tokens
    clock.time(one_round)
    operations = frozen_operations(model, trainer.count.tokens - before)
    rate = matrix_rate(model.device, model.dtype, size=matrix_size)
    busy, shares = device_time(one_round, model.device)
    return {
        "matrix_teraflops": rate / 1e12,
        "share_of_matrix_rate": operations / clock.seconds[0] / rate,
        "padding_share": trainer.count.padding / (trainer.count.tokens + trainer.count.padding),
        "share_of_time_busy": busy / clock.seconds[0],
        "share_of_busy_time": shares,
    }


def device_time(
    run: Callable[[], object], device: torch.device, *, count: int = 15
) -> tuple[float, dict[str, float]]:
    """Profile a run: seconds that the device works, and the shares of the slowest operators.

    On a GPU these are its kernels, on a CPU torch's operators.
    """
    on_gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities) as found:
        run()
        wait_for(device)
    place = DeviceType.CUDA if on_gpu else DeviceType.CPU
    attribute = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    microseconds = {
        event.key: float(getattr(event, attribute))
        for event in found.key_averages()
        if event.device_type == place
    }
    total = sum(microseconds.values())
    slowest = sorted(microseconds, key=lambda name: -microseconds[name])[:count]
    return total / 1e6, {name: microseconds[name] / total for name in slowest}
