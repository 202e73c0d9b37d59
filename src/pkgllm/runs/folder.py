"""The run folder: what a run reads back, and how the run came to be."""

import fcntl
import json
import math
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from io import FileIO
from pathlib import Path
from urllib.parse import quote

from pkgllm.errors import RunError
from pkgllm.files import cannot, restore_folders, write_atomically, write_folder_atomically
from pkgllm.runs.records import read_grown

_PACKAGES = (
    "pkgllm",
    "torch",
    "transformers",
    "peft",
    "trl",
    "flwr",
    "pykeen",
    "rdflib",
    "pydantic",
    "numpy",
    "safetensors",
)

CLIENT_ADAPTERS = "adapters"
"""Folder of a local run that holds one adapter for each training client."""


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The files of one run. Every file is written whole; metrics grow line by line.

    Args:
        path: The folder; use :meth:`create` or :meth:`open`.
    """

    path: Path

    @classmethod
    def create(cls, path: Path) -> "RunFolder":
        """Make the folder of a new run, with the folders above it.

        Raises:
            RunError: If something is in it already, or it cannot be made.
        """
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            occupied = any(path.iterdir())
        except OSError as error:
            raise cannot("make the run folder", path, error) from error
        if occupied:
            raise RunError(
                f"run folder {path}: must be new or empty, holds files; use another --output"
            )
        return cls(path)

    @classmethod
    def open(cls, path: Path, needed: Sequence[str] = ("config.yaml",)) -> "RunFolder":
        """Open the folder of a run that was made before.

        Args:
            path: The folder.
            needed: Names of the files and folders in it that the caller reads.

        Raises:
            RunError: If there is no such folder, or any of them is missing.
        """
        if not path.is_dir():
            raise RunError(f"run folder {path}: no such folder; name that of a finished run")
        restore_folders(path)
        missing = [name for name in needed if not (path / name).exists()]
        if missing:
            raise RunError(
                f"run folder {path}: not a finished run, because {', '.join(missing)} "
                f"{'is' if len(missing) == 1 else 'are'} missing; name that of a finished run"
            )
        return cls(path)

    @contextmanager
    def occupied(self) -> Iterator[None]:
        """Keep other processes from training in the folder; they are free to read it.

        Raises:
            RunError: If another process trains in it.
        """
        path = self.path / ".lock"
        # The operating system lets go of it, however this process ends.
        with path.open("wb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise RunError(
                    f"run folder {self.path}: another process is training in it; wait for it, or "
                    "stop it first"
                ) from error
            try:
                yield
            finally:
                # While it is still held, so that the newer one of another process stays.
                path.unlink(missing_ok=True)

    @property
    def config(self) -> Path:
        """The whole configuration, defaults included."""
        return self.path / "config.yaml"

    @property
    def provenance(self) -> Path:
        """What :func:`provenance` returns."""
        return self.path / "provenance.json"

    @property
    def split(self) -> Path:
        """Which facts of which client are held out."""
        return self.path / "split.json"

    @property
    def metrics(self) -> Path:
        """One line of JSON for each record of training; the same in every repetition of a run."""
        return self.path / "metrics.jsonl"

    @property
    def timings(self) -> Path:
        """One line of JSON for each stretch of training: how long it took, when it ended."""
        return self.path / "timings.jsonl"

    @property
    def validation(self) -> Path:
        """One line of JSON for each validation during training."""
        return self.path / "validation.jsonl"

    @property
    def adapter(self) -> Path:
        """The trained adapter, a folder in PEFT's form."""
        return self.path / "adapter"

    @property
    def predictions(self) -> Path:
        """One line of JSON for each ranked query."""
        return self.path / "predictions.jsonl"

    @property
    def results(self) -> Path:
        """The final numbers."""
        return self.path / "results.json"

    def write_text(self, name: str, text: str) -> Path:
        """Write a file of the folder and return its path.

        Raises:
            RunError: If it cannot be written; an earlier file of the name is unharmed.
        """
        path = self.path / name
        write_atomically(path, text)
        return path

    def write_json(self, name: str, value: object) -> Path:
        """Write a value as JSON, numbers that are not finite as null.

        Raises:
            RunError: If it cannot be written; an earlier file of the name is unharmed.
        """
        path = self.path / name
        write_atomically(path, _json(value, indent=2) + b"\n")
        return path

    def write_folder(self, name: str, fill: Callable[[Path], None]) -> Path:
        """Write a folder of the folder, as :func:`pkgllm.files.write_folder_atomically` does.

        Raises:
            RunError: If it cannot be written; an earlier folder of the name is unharmed.
        """
        path = self.path / name
        write_folder_atomically(path, fill)
        return path

    def append_metrics(self, record: Mapping[str, object]) -> None:
        """Add one record to the metrics; it survives the death of the process.

        Raises:
            RunError: If it cannot be written; the records before it are unharmed.
        """
        _append(self.metrics, record)

    def append_timings(self, record: Mapping[str, object]) -> None:
        """Add one record to the timings, as :meth:`append_metrics` does."""
        _append(self.timings, record)

    def append_validation(self, record: Mapping[str, object]) -> None:
        """Add one record to the validations, as :meth:`append_metrics` does."""
        _append(self.validation, record)

    def read_metrics(self) -> list[dict[str, object]]:
        """Return the records in the order in which they were added.

        A last line without its end was torn by a crash and counts as never written.

        Raises:
            RunError: If the file cannot be read or another line is not a JSON object.
        """
        return read_grown(self.metrics)

    def read_timings(self) -> list[dict[str, object]]:
        """Return the timings, as :meth:`read_metrics` does."""
        return read_grown(self.timings)

    def read_validation(self) -> list[dict[str, object]]:
        """Return the validations, as :meth:`read_metrics` does."""
        return read_grown(self.validation)


def client_adapter(run: Path, client: str) -> Path:
    """Return the folder of a client's own adapter; any id makes a safe name."""
    # quote leaves full stops alone, and "." and ".." are folders already.
    return run / CLIENT_ADAPTERS / quote(client, safe="").replace(".", "%2E")


def provenance(*, seed: int, digests: Mapping[str, str]) -> dict[str, object]:
    """Return what another person needs to tell whether two runs could be the same.

    Returns:
        Plain values: the moment (UTC), command, seed, digests, versions, machine, and the commit of
        the source code, null unless it runs from a checkout.
    """
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(sys.argv),
        "seed": seed,
        "digests": dict(digests),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "source": _source(Path(__file__)),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _source(file: Path) -> dict[str, object] | None:
    """Return commit and state of the checkout that tracks a file."""

    def git(*arguments: str) -> str:
        # Without optional locks git writes nothing, so that it does not disturb another git.
        command = ["git", "--no-optional-locks", "-C", str(file.parent), *arguments]
        finished = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
        return finished.stdout.strip()

    try:
        # An installed copy may lie in a checkout of something else.
        git("ls-files", "--error-unmatch", file.name)
        return {"commit": git("rev-parse", "HEAD"), "modified": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None


def _json(value: object, indent: int | None = None) -> bytes:
    text = json.dumps(_finite(value), ensure_ascii=False, allow_nan=False, indent=indent)
    # Half a surrogate pair, which broken corpora hold, is no UTF-8, but its escape is JSON.
    return text.encode("utf-8", "backslashreplace")


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return value


def _append(path: Path, record: Mapping[str, object]) -> None:
    line = _json(record) + b"\n"
    try:
        # Unbuffered, so that the line goes out at once and in one piece.
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "ab+", buffering=0) as file:
            _cut_torn_line(file)
            written = file.write(line)
            if written < len(line):
                file.write(line[written:])
            # On the disk before a checkpoint counts it.
            os.fsync(file.fileno())
    except OSError as error:
        raise cannot("write", path, error) from error


def _cut_torn_line(file: FileIO) -> None:
    """Drop what a crash left of a last line, so that the next one begins on its own."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - 1, 0))
    if file.read(1) in (b"", b"\n"):
        return
    file.seek(0)
    file.truncate(file.readall().rfind(b"\n") + 1)
