"""Random decoders of a few thousand parameters, one of each type that can rank a catalogue."""

from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

VOCABULARY, MAX_POSITIONS = 60, 64
ROPE: dict[str, Any] = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}


def tiny_decoder(model_type: str = "qwen3", seed: int = 0, **changes: Any) -> PreTrainedModel:
    """Make a random model whose outputs are far from uniform, so that tests can tell."""
    settings = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": MAX_POSITIONS,
        "initializer_range": 0.3,
    } | changes
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = AutoConfig.for_model(model_type, **settings)
        # transformers leaves this method untyped.
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
        for name, parameter in model.named_parameters():
            # They start at 0 and 1, where one that is forgotten cannot be told.
            if name.endswith("bias") or "norm" in name:
                torch.nn.init.normal_(parameter, float("norm" in name), 0.3)
    model.train(False)
    return model


def with_random_adapter(
    model: PreTrainedModel, target_modules: str | list[str] = "all-linear", **changes: Any
) -> PeftModel:
    """Wrap a model's layers so that both factors of its adapter count."""
    settings = {"r": 3, "lora_alpha": 5, "init_lora_weights": False} | changes
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        policy = get_peft_model(
            model, LoraConfig(target_modules=target_modules, task_type="CAUSAL_LM", **settings)
        )
    assert isinstance(policy, PeftModel)
    policy.train(False)
    return policy
