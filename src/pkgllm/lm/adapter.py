"""The LoRA adapter: attach it to a base model, read it, replace it and save it in PEFT's form.

Source: Hu et al. 2021, arXiv:2106.09685, eq. 3: ``W x + (lora_alpha / lora_rank) B A x``.
"""

import json
import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from peft import (
    LoraConfig,
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from pkgllm.errors import ModelError
from pkgllm.lm.model_files import find_base_model

AdapterState = dict[str, Tensor]
"""LoRA factors by PEFT's key names, sorted; float32, on the CPU."""


def attach_adapter(
    model: PreTrainedModel,
    *,
    lora_rank: int,
    lora_alpha: float,
    target_modules: tuple[str, ...] | str,
    seed: int,
    rank_stabilized: bool = False,
    freeze_a: bool = False,
) -> PeftModel:
    """Wrap a frozen base model so that it carries a fresh adapter, and return the policy.

    ``lora_B`` starts at zero, so the policy equals the base model until it is trained. The global
    random state of torch does not change.

    Args:
        model: The base model, already on its device. Its layers are wrapped in place.
        lora_rank: Inner dimension of the factors.
        lora_alpha: Scale numerator.
        target_modules: Names of the linear layers to adapt, or ``all-linear``.
        seed: Of the random start of ``lora_A``.
        rank_stabilized: Whether to divide by the square root of the rank (Kalajdzievski 2023,
            arXiv:2312.03732, eq. 4).
        freeze_a: Whether only ``lora_B`` is trained (Sun et al. 2024, arXiv:2403.12313).

    Raises:
        ModelError: If the base model has no layer of one of these names, or one is the embedding or
            the LM head, which nothing that ranks computes with an adapter.
    """
    if not isinstance(target_modules, str):
        present = {f".{name}" for name, _ in model.named_modules()}
        absent = [t for t in target_modules if not any(n.endswith(f".{t}") for n in present)]
        if absent:
            raise ModelError(
                f"adapter.target_modules: the base model has no layer {', '.join(absent)}; name "
                "linear layers of it, or all-linear"
            )
    config = LoraConfig(
        r=lora_rank,
        # PEFT annotates it as int, but divides it by the rank, so that a float works.
        lora_alpha=cast("int", lora_alpha),
        lora_dropout=0.0,
        use_rslora=rank_stabilized,
        target_modules=target_modules
        if isinstance(target_modules, str)
        else sorted(target_modules),
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=[]), _without_renaming_warning():
        torch.manual_seed(seed)
        try:
            policy = get_peft_model(model, config)
        except ValueError as error:
            raise ModelError(f"adapter.target_modules: {error}") from error
    assert isinstance(policy, PeftModel)
    _check_layers(policy, "adapter.target_modules")
    if freeze_a:
        for name, parameter in policy.named_parameters():
            if "lora_A" in name:
                parameter.requires_grad_(False)
    return policy


def _check_layers(policy: PeftModel, place: str) -> None:
    """Fail where an adapter changes more than linear layers below the LM head."""
    causal: Any = policy.get_base_model()
    head = causal.get_output_embeddings()
    for name, layer in policy.named_modules():
        if not isinstance(layer, BaseTunerLayer | AuxiliaryTrainingWrapper):
            continue
        own = layer.get_base_layer() if isinstance(layer, BaseTunerLayer) else layer
        if not isinstance(layer, LoraLayer) or isinstance(own, torch.nn.Embedding) or layer is head:
            raise ModelError(
                f"{place}: {name} cannot have an adapter, because ranking computes LoRA of linear "
                "layers alone, none of the embedding or the LM head; leave it out"
            )


def adapter_state(policy: PeftModel) -> AdapterState:
    """Return a copy of the policy's adapter."""
    # The default asks the hub whether the base model's vocabulary was resized.
    state = get_peft_model_state_dict(policy, save_embedding_layers=False)
    return {key: state[key].detach().to("cpu", torch.float32, copy=True) for key in sorted(state)}


def trained_keys(policy: PeftModel) -> list[str]:
    """Return the keys of the factors that are trained, sorted."""
    return sorted(trained_parameters(policy))


def load_adapter_state(policy: PeftModel, state: Mapping[str, Tensor]) -> None:
    """Put an adapter's values into the policy.

    Raises:
        ModelError: If a key is missing, foreign, or of another shape.
    """
    present = get_peft_model_state_dict(policy, save_embedding_layers=False)
    missing, foreign = sorted(present.keys() - state.keys()), sorted(state.keys() - present.keys())
    if missing or foreign:
        raise ModelError(
            f"the adapter does not fit the base model: {len(missing)} keys missing {missing[:2]}, "
            f"{len(foreign)} foreign {foreign[:2]}"
        )
    for key, value in present.items():
        if value.shape != state[key].shape:
            raise ModelError(
                f"the adapter does not fit the base model: {key} must have shape "
                f"{tuple(value.shape)}, got {tuple(state[key].shape)}"
            )
    set_peft_model_state_dict(policy, dict(state))


@contextmanager
def carrying(policy: PeftModel, state: Mapping[str, Tensor]) -> Iterator[None]:
    """Give the policy another adapter inside the block, and the one it had before after it.

    Raises:
        ModelError: As :func:`load_adapter_state` does.
    """
    before = adapter_state(policy)
    load_adapter_state(policy, state)
    try:
        yield
    finally:
        load_adapter_state(policy, before)


def trained_parameters(policy: PeftModel) -> dict[str, torch.nn.Parameter]:
    """Return the parameters of the adapter that are trained, by PEFT's key names."""
    name_inside = f".{policy.active_adapter}."
    return {
        name.replace(name_inside, "."): parameter
        for name, parameter in policy.named_parameters()
        if parameter.requires_grad
    }


def num_trained_parameters(
    name: str, *, lora_rank: int, target_modules: tuple[str, ...] | str, freeze_a: bool
) -> int:
    """Return the number of trained values of an adapter, from the base model's configuration alone.

    Raises:
        ModelError: If there is no such base model, or it has no layer of these names.
    """
    place = find_base_model(name)
    try:
        config = AutoConfig.from_pretrained(
            place, local_files_only=Path(place).is_dir(), trust_remote_code=False
        )
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


@contextmanager
def without_adapter(policy: PeftModel) -> Iterator[None]:
    """Disable the adapter inside the block; PEFT alone would unfreeze a frozen ``lora_A`` after."""
    trained = {name: p.requires_grad for name, p in policy.named_parameters()}
    try:
        with policy.disable_adapter():
            yield
    finally:
        for name, parameter in policy.named_parameters():
            parameter.requires_grad_(trained[name])


def update_norm(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> float:
    """Return the Euclidean length of the step from one adapter to another."""
    return math.sqrt(sum(float((after[k] - before[k]).double().square().sum()) for k in before))


def save_adapter(policy: PeftModel, folder: Path) -> None:
    """Write the policy's adapter so that ``PeftModel.from_pretrained`` loads it."""
    policy.save_pretrained(str(folder), save_embedding_layers=False)
    # PEFT adds an empty template of a model card.
    (folder / "README.md").unlink(missing_ok=True)
    # PEFT keeps the names of layers in a set, whose order differs between processes.
    path = folder / "adapter_config.json"
    written = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(written["target_modules"], list):
        written["target_modules"].sort()
    path.write_text(json.dumps(written, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def read_adapter_state(folder: Path) -> AdapterState:
    """Read the values of a saved adapter.

    They may be infinite or not a number: the adapter of a single client then fails for that client
    alone, where it is asked.

    Raises:
        ModelError: If the folder holds no adapter, or one whose values are no fractions.
    """
    try:
        state = load_file(folder / "adapter_model.safetensors")
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{folder}: cannot read an adapter there: {error}") from error
    for key, value in state.items():
        if not value.is_floating_point():
            raise ModelError(f"{folder}: {key} must hold floating-point numbers, got {value.dtype}")
    return {key: state[key].float() for key in sorted(state)}


def load_adapter(model: PreTrainedModel, folder: Path) -> PeftModel:
    """Attach a saved adapter to its base model.

    Raises:
        ModelError: If the folder holds no adapter, or one of another base model: one of its tensors
            is missing, foreign or of another shape, or it changes other layers than
            :func:`attach_adapter` allows.
    """
    if not (folder / "adapter_config.json").is_file():
        raise ModelError(f"{folder}: not an adapter, because adapter_config.json is missing")
    state = read_adapter_state(folder)
    for key, value in state.items():
        if not value.isfinite().all():
            raise ModelError(f"{folder}: {key} must hold finite numbers only")
    try:
        with _without_renaming_warning():
            policy = PeftModel.from_pretrained(model, str(folder), is_trainable=True)
    except Exception as error:  # damaged files raise errors of many types
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(
            f"{folder}: the adapter does not load into base model "
            f"{model.config.name_or_path!r}: {reason[0]}"
        ) from error
    _check_layers(policy, str(folder))
    config = policy.peft_config[policy.active_adapter]
    if not isinstance(config, LoraConfig) or config.use_dora or config.bias != "none":
        raise ModelError(f"{folder}: must hold a plain LoRA adapter, without DoRA and biases")
    try:
        # PEFT fills what is missing with fresh values and passes over what is foreign.
        load_adapter_state(policy, state)
    except ModelError as error:
        raise ModelError(f"{folder}: {error}") from error
    return policy


@contextmanager
def _without_renaming_warning() -> Iterator[None]:
    # PEFT 0.21 reads a property of transformers 5.23 by its former name.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")
        yield
