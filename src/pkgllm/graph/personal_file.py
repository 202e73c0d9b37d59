"""One person's file: read, and changed by one process at a time.

A change reads the file, makes a new record and writes it whole, while a lock beside the file keeps
other processes from changing it. Readers need no lock: they see the old file or the new one.
"""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BufferedWriter
from pathlib import Path

from pkgllm.errors import DataError, RunError
from pkgllm.files import cannot
from pkgllm.graph.personal_record import PersonalRecord
from pkgllm.graph.rdf import read_record, write_graph
from pkgllm.graph.rdf_text import format_of

PATIENCE = 10.0
"""How long a change waits for another one, seconds."""

_BETWEEN_TRIES = 0.05


def create(path: Path, owner: str, *, patience: float = PATIENCE) -> PersonalRecord:
    """Make the file of a person of whom nothing is known yet; its owner alone may read it.

    Raises:
        DataError: If the file is there already, or its ending is another one.
        RunError: If it cannot be written.
    """
    format_of(path)
    with _alone(path, patience):
        if path.exists():
            raise DataError(f"{path}: is there already; choose another name")
        record = PersonalRecord(owner)
        write_graph(record, path, private=True)
    return record


def change(
    path: Path,
    make: Callable[[PersonalRecord], PersonalRecord],
    *,
    patience: float = PATIENCE,
) -> tuple[PersonalRecord, PersonalRecord]:
    """Change a file, whole or not at all, while no other process changes it.

    Where nothing changes, nothing is written. What its owner alone may read stays so.

    Args:
        path: The file, or a link to it.
        make: Makes the new record from the one that the file holds.
        patience: How long to wait for another process, seconds.

    Returns:
        The records before and after.

    Raises:
        DataError: If the file cannot be read or holds no personal graph.
        RunError: If another process does not finish in time, or the file cannot be written.
    """
    if not path.exists():
        raise DataError(
            f"{path}: no such file; make an empty graph with: pkgllm pkg new {path} --owner NAME"
        )
    # Replacing a link by a file would leave what it points to behind.
    path = path.resolve()
    with _alone(path, patience):
        before = read_record(path)
        after = make(before)
        if after != before:
            only_its_owners = path.stat().st_mode & 0o077 == 0
            write_graph(after, path, private=only_its_owners)
    return before, after


@contextmanager
def _alone(path: Path, patience: float) -> Iterator[None]:
    lock = path.with_name(f".{path.name}.lock")
    deadline = time.monotonic() + patience
    while (file := _take(lock)) is None:
        if time.monotonic() >= deadline:
            raise RunError(
                f"{path}: another process is changing it, and did not finish within "
                f"{patience:g} s; wait for it, or stop it, and try again"
            )
        time.sleep(_BETWEEN_TRIES)
    with file:
        try:
            yield
        finally:
            # While it is still held, so that nobody's newer one is taken away.
            lock.unlink(missing_ok=True)


def _take(lock: Path) -> BufferedWriter | None:
    """Return the lock's file, locked until it is closed, or None where another process has it."""
    try:
        file = lock.open("wb")
    except OSError as error:
        raise cannot("make the lock", lock, error) from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Whoever held it may have taken its name away since it was opened.
        if os.fstat(file.fileno()).st_ino == lock.stat().st_ino:
            return file
    except (BlockingIOError, FileNotFoundError):
        pass
    file.close()
    return None
