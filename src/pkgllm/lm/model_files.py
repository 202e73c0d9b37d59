"""Where a base model lies, and the files in it that decide tokens and logits."""

import hashlib
import json
import logging
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from pkgllm.errors import ModelError
from pkgllm.files import expanded
from pkgllm.shipped import small_world_folder

logger = logging.getLogger(__name__)

HUB_PREFIX = "hub:"

WEIGHTS = "base_model"
"""Name of the digest of the weights; that of any other file is this, a slash, and the file."""

_FILE = f"{WEIGHTS}/"

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_POINTER = b"version https://git-lfs.github.com/spec/"
_DECISIVE = re.compile(
    r"(?!README).*\.(json|jinja|safetensors|model|tiktoken)|merges\.txt|vocab\.txt"
)
"""Names of the files that decide tokens and logits."""


def model_places() -> Iterator[Path]:
    """Yield the folders in which a base model's name is looked up, in order."""
    if configured := os.environ.get("PKGLLM_MODELS"):
        yield expanded(configured)
    yield Path("data/models")
    yield small_world_folder()


def find_base_model(name: str) -> str:
    """Return the absolute folder of a base model, or its hub id.

    Args:
        name: A folder, the name of a folder below one of :func:`model_places`, or a hub id:
            ``hub:owner/model``, or ``owner/model`` where no folder ``owner`` was looked at.

    Raises:
        ModelError: If it is none of these, or the folder holds no model.
    """
    if name.startswith(HUB_PREFIX):
        identifier = name.removeprefix(HUB_PREFIX)
        if not _HUB_ID.fullmatch(identifier):
            raise ModelError(
                f"base_model.name: {name} must be {HUB_PREFIX}owner/model, such as "
                f"{HUB_PREFIX}Qwen/Qwen3-0.6B"
            )
        return identifier
    tried = [expanded(name), *(place / name for place in model_places())]
    for folder in tried:
        if not folder.is_dir():
            continue
        if not (folder / "config.json").is_file():
            raise ModelError(
                f"base_model.name: {folder} is not a base model, because config.json is missing"
            )
        return str(folder.resolve())
    looked = ", ".join(str(folder) for folder in tried)
    if _HUB_ID.fullmatch(name) and not any(folder.parent.is_dir() for folder in tried):
        logger.warning(
            "base_model.name: no folder %s; the Hugging Face hub is asked for %s", looked, name
        )
        return name
    hub = f"{HUB_PREFIX}{name}" if _HUB_ID.fullmatch(name) else f"{HUB_PREFIX}Qwen/Qwen3-0.6B"
    raise ModelError(
        f"base_model.name: no base model {name!r}; looked for {looked}; give a folder, set "
        f"PKGLLM_MODELS to the folder that holds it, or name one of the hub, such as {hub}"
    )


def resolved_name(name: str) -> str:
    """Return the absolute folder of a base model that is named by a path; another name as it is.

    A name that is looked up in :func:`model_places` stays, because it means the same everywhere.
    """
    folder = expanded(name)
    return str(folder.resolve()) if (folder / "config.json").is_file() else name


def check_files(folder: Path) -> None:
    """Fail where the files of a base model cannot be loaded safely.

    Raises:
        ModelError: If a file is a Git LFS pointer, a configuration names Python code of its own, or
            there are no weights in safetensors' format.
    """
    for path in _decisive(folder):
        with path.open("rb") as stream:
            if stream.read(len(_POINTER)) == _POINTER:
                raise ModelError(
                    f"base_model.name: {path} is a Git LFS pointer, not the file itself; fetch it "
                    "with git lfs pull"
                )
        if path.suffix == ".json" and "auto_map" in _keys(path):
            raise ModelError(
                f"base_model.name: {path} names Python code of its own (auto_map), which is never "
                "run; where transformers knows the model without it, remove the key"
            )
    if not any(path.suffix == ".safetensors" for path in _decisive(folder)):
        others = sorted(path.name for path in folder.glob("*.bin"))
        reason = f"it holds {', '.join(others)}, which could run code when read" if others else ""
        raise ModelError(
            f"base_model.name: {folder} must hold weights in safetensors' format"
            f"{'; ' + reason if reason else ''}; save the model with save_pretrained"
        )


def folder_digests(folder: Path) -> dict[str, str]:
    """Return SHA-256 digests of a base model: of all weights as one, and of each other file."""
    weights, digests = hashlib.sha256(), {}
    for path in _decisive(folder):
        if path.suffix == ".safetensors":
            _feed(weights, path)
        else:
            own = hashlib.sha256()
            _feed(own, path)
            digests[f"{_FILE}{path.relative_to(folder).as_posix()}"] = own.hexdigest()
    return {WEIGHTS: weights.hexdigest(), **digests}


def changed_files(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Return the names of a base model's files whose digests differ.

    Digests of runs of earlier versions are those of the weights alone; only these are compared.
    """
    names = {WEIGHTS}
    if covers_files(then):
        names |= {name for name in {*then, *now} if name.startswith(_FILE)}
    differing = sorted(name for name in names if then.get(name) != now.get(name))
    return ["the weights" if name == WEIGHTS else name.removeprefix(_FILE) for name in differing]


def covers_files(digests: Mapping[str, str]) -> bool:
    """Whether digests are of a base model's other files too, not of its weights alone."""
    return any(name.startswith(_FILE) for name in digests)


def _decisive(folder: Path) -> list[Path]:
    own = [path for path in folder.glob("*") if _DECISIVE.fullmatch(path.name)]
    templates = folder.glob("additional_chat_templates/*.jinja")
    return sorted(path for path in (*own, *templates) if path.is_file())


def _keys(path: Path) -> set[str]:
    try:
        value = json.loads(path.read_bytes())
    except ValueError:
        # A damaged file is named when the model is loaded.
        return set()
    return set(value) if isinstance(value, dict) else set()


def _feed(digest: "hashlib._Hash", path: Path) -> None:
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
