"""Find and load the frozen base model and its tokenizer."""

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

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
from pkgllm.shipped import small_world_folder

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True, slots=True)
class BaseModel:
    """A frozen causal language model with its tokenizer."""

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    template: ChatTemplate
    digest: str
    """SHA-256 of the parameters' files, or the hub's commit."""

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


def model_places() -> Iterator[Path]:
    """Yield the folders in which a base model's name is looked up, in order."""
    if configured := os.environ.get("PKGLLM_MODELS"):
        yield Path(configured)
    yield Path("data/models")
    yield small_world_folder()


def find_base_model(name: str) -> str:
    """Return the folder of a base model, or its hub id.

    Args:
        name: A folder, the name of a folder below one of :func:`model_places`, or a hub id of the
            form ``organisation/model``.

    Raises:
        ModelError: If it is none of these, or the folder holds no model.
    """
    tried = [Path(name), *(place / name for place in model_places())]
    for folder in tried:
        if not folder.is_dir():
            continue
        if not (folder / "config.json").is_file():
            raise ModelError(
                f"base_model.name: {folder} is not a base model, because config.json is missing"
            )
        return str(folder)
    if _HUB_ID.fullmatch(name):
        return name
    raise ModelError(
        f"base_model.name: no base model {name!r}; looked for "
        f"{', '.join(str(folder) for folder in tried)}; give a folder, set PKGLLM_MODELS to the "
        "folder that holds it, or name a hub id such as Qwen/Qwen3-0.6B"
    )


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
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, local_files_only=local)
        model = AutoModelForCausalLM.from_pretrained(
            place, dtype=getattr(torch, dtype), local_files_only=local, attn_implementation="sdpa"
        )
    except Exception as error:  # damaged files raise errors of many types
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"base_model.name: cannot load {place} as a base model: {reason}"
        ) from error
    template = ChatTemplate(tokenizer, name=place)
    model.to(target)  # type: ignore[arg-type]  # the stub knows no device
    model.requires_grad_(False).train(False)
    return BaseModel(name, model, tokenizer, template, _digest(place, model))


def _digest(place: str, model: PreTrainedModel) -> str:
    if not Path(place).is_dir():
        return str(getattr(model.config, "_commit_hash", None) or place)
    digest = hashlib.sha256()
    for file in sorted(Path(place).glob("*.safetensors")):
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
