"""The number of parameters of an adapter, from the base model's configuration alone."""

from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from pkgllm.errors import ModelError
from pkgllm.lm.adapter import attach_adapter
from pkgllm.lm.base_model import find_base_model


def num_trained_parameters(
    name: str, *, lora_rank: int, target_modules: tuple[str, ...] | str, freeze_a: bool
) -> int:
    """Return the number of values of an adapter that are trained, without loading a parameter.

    Args:
        name: The base model, as for :func:`~pkgllm.lm.base_model.load_base_model`.
        lora_rank: Inner dimension of the factors.
        target_modules: Names of the linear layers to adapt, or ``all-linear``.
        freeze_a: Whether only the second factor is trained.

    Raises:
        ModelError: If there is no such base model, or it has no layer of these names.
    """
    place = find_base_model(name)
    try:
        config = AutoConfig.from_pretrained(place, local_files_only=Path(place).is_dir())
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"base_model.name: cannot read the configuration of {place}: {reason}"
        ) from error
    model.requires_grad_(False)
    with torch.device("meta"):
        policy = attach_adapter(
            model,
            lora_rank=lora_rank,
            lora_alpha=1.0,
            target_modules=target_modules,
            seed=0,
            freeze_a=freeze_a,
        )
    return sum(p.numel() for p in policy.parameters() if p.requires_grad)
