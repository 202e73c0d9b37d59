"""Edits of one person's file, by one process at a time.

An edit reads the file, makes a new record and replaces the file, while a lock beside it excludes
other processes. Readers need no lock: they see the old file or the new one.
"""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BufferedWriter
from pathlib import Path

from pkgllm.errors import DataError, RunError
from pkgllm.files import cannot, write_atomically
from pkgllm.graph.personal_document import PersonalDocument
from pkgllm.graph.personal_record import PersonalRecord
from pkgllm.graph.rdf import read_document, write_graph
from pkgllm.graph.rdf_text import format_of, read_text

PATIENCE = 10.0
"""How long an edit waits for another process, seconds."""

_RETRY_SECONDS = 0.05


def create(path: Path, owner: str, *, patience: float = PATIENCE) -> PersonalRecord:
    """Create the file of a person without facts, mode 0600.

    Raises:
        DataError: If the file exists, or it is neither JSON-LD nor Turtle by its ending.
        RunError: If it cannot be written.
    """
    format_of(path)
    with _locked(path, patience):
        if path.exists():
            raise DataError(f"{path}: exists already; choose another name")
        record = PersonalRecord(owner)
        write_graph(record, path)
    return record


def change(
    path: Path,
    make: Callable[[PersonalRecord], PersonalRecord],
    *,
    patience: float = PATIENCE,
) -> tuple[PersonalRecord, PersonalRecord]:
    """Edit a file atomically, while no other process edits it.

    If the record does not change, nothing is written. The file keeps its mode. Every triple
    that is not of the edit stays. Comments and the order of lines do not: before the first edit of
    a file that we did not write, a copy is kept beside it, with ``.original`` after its name.

    Args:
        path: The file, or a link to it.
        make: Returns the new record, from the one in the file.
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
    # A link is followed, so that its target is replaced and not the link.
    path = path.resolve()
    with _locked(path, patience):
        document = read_document(path)
        before = document.record
        after = make(before)
        if after != before:
            text = document.changed(after).exact_text(format_of(path), str(path))
            _keep_original(path, document)
            write_atomically(path, text)
    return before, after


def original_of(path: Path) -> Path:
    """Return where the text of a file that we did not write is kept before its first edit."""
    return path.with_name(f"{path.name}.original")


def _keep_original(path: Path, document: PersonalDocument) -> None:
    original = original_of(path)
    text = read_text(path)
    if original.exists() or text == document.text(format_of(path)):
        return
    write_atomically(original, text)


@contextmanager
def _locked(path: Path, patience: float) -> Iterator[None]:
    lock = path.with_name(f".{path.name}.lock")
    deadline = time.monotonic() + patience
    while (file := _try_lock(lock)) is None:
        if time.monotonic() >= deadline:
            raise RunError(
                f"{path}: another process is changing it, and did not finish within "
                f"{patience:g} s; wait for it, or stop it, and try again"
            )
        time.sleep(_RETRY_SECONDS)
    with file:
        try:
            yield
        finally:
            # Before the lock is released, so that no other process's lock is deleted.
            lock.unlink(missing_ok=True)


def _try_lock(lock: Path) -> BufferedWriter | None:
    """Return the lock's file, locked until it is closed, or None if another process holds it."""
    try:
        file = lock.open("wb")
    except OSError as error:
        raise cannot("make the lock", lock, error) from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Its last holder may have deleted it after we opened it.
        if os.fstat(file.fileno()).st_ino == lock.stat().st_ino:
            return file
    except (BlockingIOError, FileNotFoundError):
        pass
    file.close()
    return None
