"""Find and load the frozen base model and its tokenizer."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from pkgllm.errors import ModelError
from pkgllm.lm.chat_template import ChatTemplate
from pkgllm.lm.model_files import WEIGHTS, check_files, find_base_model, folder_digests


@dataclass(frozen=True, slots=True)
class BaseModel:
    """A frozen causal language model with its tokenizer."""

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    template: ChatTemplate
    digests: Mapping[str, str]
    """Of everything that decides tokens and logits: SHA-256 by file, or the hub's commit."""

    @property
    def device(self) -> torch.device:
        """The device of the parameters."""
        return self.model.device

    @property
    def max_positions(self) -> int:
        """Longest sequence of the model, tokens."""
        return int(self.model.config.max_position_embeddings)

    @property
    def terminator_id(self) -> int:
        """Token that ends a completion: the end of the assistant's turn."""
        return self.template.terminator


def find_device(name: str, *, key: str = "base_model.device") -> torch.device:
    """Return the device of a name; ``auto`` is the first GPU, else the CPU.

    Args:
        name: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        key: Of the configuration, for messages.

    Raises:
        ModelError: If the name is not that of a device, or this machine lacks it.
    """
    num_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda:0" if num_gpus else "cpu")
    match = re.fullmatch(r"cpu|cuda(?::(\d+))?", name)
    if match is None:
        raise ModelError(f"{key} must be auto, cpu, cuda or cuda:N, got {name!r}")
    if name != "cpu" and int(match.group(1) or 0) >= num_gpus:
        raise ModelError(
            f"{key}: this machine has {num_gpus} usable GPUs, got {name}; set {key} to auto or cpu"
        )
    return torch.device(name)


def load_base_model(name: str, *, device: str = "auto", dtype: str = "float32") -> BaseModel:
    """Load a base model, frozen and in evaluation mode.

    A folder is read without network access; a hub id is downloaded.

    Raises:
        ModelError: If it cannot be found or loaded, its chat template cannot be used
            (:class:`pkgllm.lm.chat_template.ChatTemplate`), or the device is missing.
    """
    place, target = find_base_model(name), find_device(device)
    local = Path(place).is_dir()
    if local:
        check_files(Path(place))
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            place, local_files_only=local, trust_remote_code=False
        )
        with _quiet():
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                place,
                dtype=getattr(torch, dtype),
                local_files_only=local,
                trust_remote_code=False,
                use_safetensors=True,
                attn_implementation="sdpa",
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
    except Exception as error:  # damaged files raise errors of many types
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"base_model.name: cannot load {place} as a base model: {reason}"
        ) from error
    # The stub of transformers does not know that the report of loading comes with the model.
    model, loading = loaded
    _check_parameters(place, model, loading)
    template = ChatTemplate(tokenizer, name=place)
    model.to(target)
    model.requires_grad_(False).train(False)
    digests = folder_digests(Path(place)) if local else {WEIGHTS: _commit(place, model)}
    return BaseModel(name, model, tokenizer, template, digests)


def _check_parameters(place: str, model: PreTrainedModel, loading: Mapping[str, Any]) -> None:
    """Fail where the weights are not those of the model that the configuration describes.

    Raises:
        ModelError: If a parameter has no value or one of another shape, or a value no parameter.
    """
    tied = set(getattr(model, "all_tied_weights_keys", None) or ())
    shapes = {
        key: f"{key} of shape {tuple(stored)} where {tuple(expected)} is expected"
        for key, stored, expected in loading["mismatched_keys"]
    }
    faults = {
        "has no value for": sorted(set(loading["missing_keys"]) - tied - shapes.keys()),
        "has values of no parameter,": sorted(set(loading["unexpected_keys"]) - tied),
        "has values of another shape,": sorted(shapes.values()),
    }
    problems = [
        f"{fault} {', '.join(keys[:3])}{f' and {len(keys) - 3} more' if len(keys) > 3 else ''}"
        for fault, keys in faults.items()
        if keys
    ]
    if problems:
        raise ModelError(
            f"base_model.name: {place}: the base model {'; it '.join(problems)}; restore its "
            "safetensors files and config.json"
        )


def _commit(name: str, model: PreTrainedModel) -> str:
    commit = getattr(model.config, "_commit_hash", None)
    if commit is None:
        raise ModelError(
            f"base_model.name: the hub named no commit of {name}, so that runs could not be told "
            "apart; download it, and give its folder"
        )
    return str(commit)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' report of loading from the terminal: its faults are raised here."""
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)
