"""Atomic and private writes: a crash never leaves a part, and nobody else may read a new file.

New files have mode 0600 and new folders 0700, whatever the umask; a file that is replaced keeps the
mode that its owner gave it.
"""

import contextlib
import errno
import os
import re
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError

from pkgllm.errors import RunError

_ASIDE = ".replaced"
"""Suffix of the hidden name of a folder while it is replaced."""


def cannot(action: str, path: Path, error: OSError) -> RunError:
    """Return an error of the operating system in one sentence, with advice.

    Example:
        >>> full = OSError(errno.ENOSPC, "No space left on device")
        >>> str(cannot("write", Path("runs/1/results.json"), full))
        'cannot write runs/1/results.json: No space left on device; free some space there'
    """
    return RunError(f"cannot {action} {path}: {error.strerror or error}; {_advice(error)}")


def _advice(error: OSError) -> str:
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return "free some space there"
        case errno.EFBIG:
            return "raise the limit on the size of a file (ulimit -f)"
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return "choose a place that you may write to"
        case errno.ENOTDIR | errno.EEXIST:
            return "a file is where a folder is needed; choose another place"
        case errno.ENOENT:
            return "make its folder first"
        case _:
            return "choose another place"


def expanded(text: str) -> Path:
    """Return the path that a key of a configuration or an environment variable names.

    A leading ``~`` is the home folder, everywhere; a home that is not known leaves it as it is.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def make_folder(path: Path, *, parents: bool = False) -> None:
    """Make a folder of mode 0700 where there is none.

    Raises:
        RunError: If it cannot be made.
    """
    try:
        path.mkdir(mode=0o700, exist_ok=True, parents=parents)
    except OSError as error:
        raise cannot("make", path, error) from error


def hidden_sibling(path: Path) -> Path:
    """Return an unused hidden name beside a path, for unfinished content."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")


def remove_unfinished(folder: Path) -> None:
    """Remove unfinished files and folders of dead processes below a folder."""
    for path in sorted(folder.rglob(".*.tmp")):
        with contextlib.suppress(OSError):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file so that a reader sees the old content or the new one, never a part.

    The content is written to a temporary file in the same folder, synced to the disk, and renamed
    last. The folder must exist.

    Args:
        path: The file to create or replace.
        content: Text is written as UTF-8, its line ends unchanged.

    Raises:
        RunError: If the file cannot be written; an old one is unchanged.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = hidden_sibling(path)
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            with contextlib.suppress(FileNotFoundError):
                os.fchmod(descriptor, path.stat().st_mode & 0o777)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise cannot("write", path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def read_bytes(path: Path) -> bytes:
    """Return the content of a file.

    Raises:
        RunError: If it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror or error}") from error


def write_folder_atomically(path: Path, fill: Callable[[Path], None]) -> None:
    """Write a folder so that it is the old one or the new one, never a mixture.

    The content is written to a temporary folder beside it. An old folder is renamed first;
    :func:`restore_folders` renames it back if the process dies before the new one is in place.

    Args:
        path: The folder to create or replace; its parent must exist.
        fill: Writes the content into an empty folder.

    Raises:
        RunError: If the folder cannot be written; an old one is unchanged.
    """
    temporary, aside = hidden_sibling(path), path.with_name(f".{path.name}{_ASIDE}")
    try:
        temporary.mkdir(mode=0o700)
        fill(temporary)
        _sync(temporary)
        if path.exists():
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)
        temporary.rename(path)
        sync_folder(path.parent)
        shutil.rmtree(aside, ignore_errors=True)
    except OSError as error:
        raise cannot("write", path, error) from error
    except SafetensorError as error:
        raise cannot("write", path, _as_os_error(error)) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        restore_folders(path.parent)


def restore_folders(parent: Path) -> None:
    """Rename back every folder whose replacement was interrupted."""
    for aside in parent.glob(f".*{_ASIDE}"):
        path = aside.with_name(aside.name.removeprefix(".").removesuffix(_ASIDE))
        with contextlib.suppress(OSError):
            if not path.exists():
                aside.rename(path)


def _as_os_error(error: SafetensorError) -> OSError:
    """Return the operating system's error, of which safetensors keeps only the text."""
    number = re.search(r"os error (\d+)", str(error))
    return OSError(int(number[1]), os.strerror(int(number[1]))) if number else OSError(str(error))


def sync_folder(folder: Path) -> None:
    """Put the names in a folder on the disk, without which a power cut may take a new file away."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync(folder: Path) -> None:
    for path in (*folder.rglob("*"), folder):
        if path.is_dir():
            sync_folder(path)
        elif path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
