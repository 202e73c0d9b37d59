"""Checkpoints of training: what a run needs to go on as if it had never stopped.

A checkpoint is one file in safetensors' format: adapters and the strategy's state as tensors by
section, and beside them, as text, the position of training and the lengths of growing files.
Random streams are no part of it, since each is derived from the seed and from what it is for.
"""

import json
import logging
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from pkgllm.errors import RunError
from pkgllm.files import cannot, make_folder, write_atomically

logger = logging.getLogger(__name__)

Sections = Mapping[str, Mapping[str, Tensor]]
"""Tensors by section and key."""

GROWING = ("metrics.jsonl", "validation.jsonl", "timings.jsonl")
"""Files of a run that are longer after each round."""

_FOLDER = "checkpoints"
_SEPARATOR = "/"
_FORMAT = "pkgllm checkpoint 1"

_UNUSABLE = (SafetensorError, OSError, KeyError, TypeError, ValueError)
"""What a damaged checkpoint raises."""

_ABOUT = "about"
"""The one key of the file's metadata, whose keys would come in any order."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What training had come to."""

    position: int
    """Stretches of training that are done; of a federated run its rounds."""
    sections: Sections
    lines: Mapping[str, int]
    """Of each file in :data:`GROWING`."""

    def section(self, name: str) -> dict[str, Tensor]:
        """Return the tensors of a section by key, sorted; none where there is no such section."""
        tensors = self.sections.get(name, {})
        return {key: tensors[key] for key in sorted(tensors)}


class Checkpoints:
    """The checkpoints of one run, in its folder ``checkpoints``.

    Args:
        run: The run folder.
        keep: The newest so many stay, at least 1.

    Raises:
        ValueError: If ``keep`` is not positive.
    """

    def __init__(self, run: Path, *, keep: int) -> None:
        if keep < 1:
            raise ValueError(f"keep must be at least 1, got {keep}")
        self._run = run
        self._keep = keep

    def write(self, position: int, sections: Sections) -> None:
        """Write a checkpoint, whole or not at all, and delete those that are too many.

        Args:
            position: Stretches of training that are done.
            sections: What training has come to; CPU tensors.

        Raises:
            RunError: If it cannot be written; the checkpoints before it are unharmed.
        """
        tensors = {
            f"{name}{_SEPARATOR}{key}": value.contiguous()
            for name, section in sections.items()
            for key, value in section.items()
        }
        about = {
            "format": _FORMAT,
            "position": position,
            "lines": {name: len(_lines(self._run / name)) for name in GROWING},
        }
        folder = self._run / _FOLDER
        make_folder(folder)
        sealed = json.dumps({**about, "checksum": _checksum(about, tensors)})
        content = save(tensors, {_ABOUT: sealed})
        write_atomically(self._path(position), content)
        for old in self._newest_first()[self._keep :]:
            old.unlink(missing_ok=True)

    def newest(self) -> Checkpoint | None:
        """Return the newest checkpoint that can be used, or None where there never was one.

        One that is damaged, or counts lines that a power cut took from the growing files, is passed
        over, and the log says so: the rounds after the one before it are done again.

        Raises:
            RunError: If there are checkpoints and none of them can be used.
        """
        faults = []
        for path in self._newest_first():
            try:
                return self._read(path)
            except _UNUSABLE as error:
                logger.warning("checkpoint %s is passed over: %s", path, error)
                faults.append(f"{path.name}: {error}")
        if faults:
            raise RunError(
                f"{self._run / _FOLDER}: no checkpoint can be used ({'; '.join(faults)}); restore "
                "one of them, or train again in another folder"
            )
        return None

    def at(self, position: int) -> Checkpoint:
        """Read the checkpoint of a position.

        Raises:
            RunError: If there is none, or it is damaged.
        """
        path = self._path(position)
        try:
            return self._read(path)
        except _UNUSABLE as error:
            there = ", ".join(str(int(path.stem)) for path in self._newest_first()) or "none"
            raise RunError(
                f"{path}: must hold a whole checkpoint, and cannot be read ({error}); there are "
                f"those of {there}; restore it, or train again in another folder"
            ) from error

    def go_back(self, position: int) -> Checkpoint:
        """Return the checkpoint of a position, and delete all newer ones.

        Raises:
            RunError: If there is none, or it cannot be used; all are unharmed then.
        """
        checkpoint = self.at(position)
        for path in self._newest_first():
            if int(path.stem) > position:
                path.unlink(missing_ok=True)
        return checkpoint

    def rewind(self, checkpoint: Checkpoint | None) -> None:
        """Cut the growing files back to where they were at a checkpoint, or at the beginning.

        Raises:
            RunError: If a file is shorter than it was, or cannot be cut.
        """
        for name in GROWING:
            path = self._run / name
            wanted = checkpoint.lines[name] if checkpoint else 0
            lines = _lines(path)
            if len(lines) < wanted:
                raise RunError(_missing_lines(path, wanted, len(lines)) + "; restore it")
            try:
                if wanted:
                    os.truncate(path, sum(map(len, lines[:wanted])))
                else:
                    path.unlink(missing_ok=True)
            except OSError as error:
                raise cannot("cut", path, error) from error

    def _read(self, path: Path) -> Checkpoint:
        """Read a checkpoint whose lines are all there."""
        checkpoint = _read(path)
        for name in GROWING:
            file, wanted = self._run / name, checkpoint.lines[name]
            if (length := len(_lines(file))) < wanted:
                raise ValueError(_missing_lines(file, wanted, length))
        return checkpoint

    def _path(self, position: int) -> Path:
        return self._run / _FOLDER / f"{position:06d}.safetensors"

    def _newest_first(self) -> list[Path]:
        paths = (self._run / _FOLDER).glob("*.safetensors")
        return sorted((path for path in paths if path.stem.isdecimal()), reverse=True)


def _read(path: Path) -> Checkpoint:
    with safe_open(path, framework="pt") as file:
        about = json.loads((file.metadata() or {})[_ABOUT])
        if about.get("format") != _FORMAT:
            raise ValueError(f"must be of the format {_FORMAT!r}, got {about.get('format')!r}")
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
    checksum = about.pop("checksum")
    if _checksum(about, tensors) != checksum:
        raise ValueError("its content does not match its checksum")
    sections: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        section, key = name.split(_SEPARATOR, 1)
        sections.setdefault(section, {})[key] = value
    return Checkpoint(about["position"], sections, about["lines"])


def _missing_lines(path: Path, wanted: int, length: int) -> str:
    return f"{path}: must hold the {wanted} lines that were there at the checkpoint, holds {length}"


def _lines(path: Path) -> list[bytes]:
    """Return the whole lines of a file; what a crash left of a last one is none."""
    try:
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    except OSError as error:
        raise cannot("read", path, error) from error
    return [line for line in lines if line.endswith(b"\n")]


def _checksum(about: Mapping[str, object], tensors: Mapping[str, Tensor]) -> int:
    """Return a CRC-32 of all that a checkpoint says and holds."""
    checksum = zlib.crc32(json.dumps(about, sort_keys=True).encode())
    for name in sorted(tensors):
        value = tensors[name].numpy()
        checksum = zlib.crc32(f"{name} {value.dtype} {value.shape}".encode(), checksum)
        checksum = zlib.crc32(value.reshape(-1).view("u1").data, checksum)
    return checksum
