"""The values of a reference cache that are on disk: a table in a file of SQLite."""

import logging
import os
import sqlite3
import struct
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from zlib import crc32

from pkgllm.errors import RunError
from pkgllm.files import cannot

logger = logging.getLogger(__name__)

Row = tuple[object, object]
"""A key and its entry: the value and a checksum, four bytes each."""

# SQLite's own type REAL would turn -0.0 into 0.0 and NaN into NULL.
_TABLE = """\
CREATE TABLE IF NOT EXISTS reference (key BLOB PRIMARY KEY, entry BLOB NOT NULL) WITHOUT ROWID
"""

_FLOAT32 = struct.Struct("<f")

_KEYS_IN_A_QUERY = 500
"""SQLite before version 3.32 takes 999 at most."""

_NOT_THE_FILES_FAULT = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_PERM,
}
"""Errors that a new file in the same place would meet too."""


class DiskTier:
    """Keeps values in a file that only its owner may read.

    The file is made by the first write and open only during a call. A call's writes are one
    transaction, so a process that dies leaves all of them or none. Every value carries a checksum
    of itself and its key, so that whatever befell the file, no other value is returned. A damaged
    file is deleted and begun anew, and the log says so the first time.

    Args:
        path: The file; its folder must exist. A file of an earlier run is read and added to.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._told = False

    def read(self, keys: Sequence[bytes]) -> dict[bytes, float]:
        """Return the values of those keys that the file holds.

        Raises:
            RunError: If the file cannot be used, and a new one could not be either.
        """
        if not keys or not self._path.exists():
            return {}
        rows = self._transact(lambda connection: _select(connection, keys))
        values = {}
        for key, entry in rows:
            # In a damaged file a column may hold anything, even what is no bytes.
            if (
                not isinstance(key, bytes)
                or not isinstance(entry, bytes)
                or entry != _sealed(key, entry[:4])
            ):
                self._begin_anew("an entry does not match its checksum")
                return {}
            values[key] = _FLOAT32.unpack(entry[:4])[0]
        return values

    def write(self, values: Mapping[bytes, float]) -> None:
        """Add values; those of keys that the file holds already are left alone.

        Args:
            values: Exact in float32.

        Raises:
            RunError: If the file cannot be used, and a new one could not be either.
        """
        rows = [(key, _sealed(key, _FLOAT32.pack(value))) for key, value in values.items()]
        insert = "INSERT OR IGNORE INTO reference VALUES (?, ?)"
        self._transact(lambda connection: list(connection.executemany(insert, rows)))

    def _transact(self, action: Callable[[sqlite3.Connection], list[Row]]) -> list[Row]:
        """Return the rows of an action on the open file; no rows where the file is damaged."""
        try:
            # SQLite gives its journal the rights of the file, so these must be right before.
            with suppress(FileExistsError):
                os.close(os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            self._path.chmod(0o600)
            with closing(sqlite3.connect(self._path)) as connection, connection:
                # Text can only come from a damaged file, and must come as far as the checksum.
                connection.text_factory = bytes
                # What a process has written reaches the file though the process is killed, so
                # the journal undoes its unfinished transaction without any wait for the disk.
                # When the machine fails, pages may be lost or torn: SQLite or a checksum tells,
                # or a key is not found and its value computed again.
                connection.execute("PRAGMA journal_mode = DELETE")
                connection.execute("PRAGMA synchronous = OFF")
                connection.execute(_TABLE)
                return action(connection)
        except OSError as error:
            raise cannot("write", self._path, error) from error
        except sqlite3.DatabaseError as error:
            # The lowest byte is the kind of error; the others are its details.
            if error.sqlite_errorcode & 0xFF in _NOT_THE_FILES_FAULT:
                raise RunError(
                    f"cannot use the reference cache {self._path}: {error}; see that its disk has "
                    "space and that no other run uses its folder"
                ) from error
            self._begin_anew(error.sqlite_errorname)
        except UnicodeDecodeError:
            # An error's text quotes the file, which need not hold text any more.
            self._begin_anew("SQLITE_CORRUPT")
        return []

    def _begin_anew(self, reason: str) -> None:
        if not self._told:
            logger.warning(
                "reference cache %s: damaged, so deleted and begun anew: %s", self._path, reason
            )
            self._told = True
        try:
            # SQLite itself deletes a journal when it finds the file of its name empty.
            self._path.unlink(missing_ok=True)
        except OSError as error:
            raise cannot("delete", self._path, error) from error


def _select(connection: sqlite3.Connection, keys: Sequence[bytes]) -> list[Row]:
    rows: list[Row] = []
    for start in range(0, len(keys), _KEYS_IN_A_QUERY):
        some = keys[start : start + _KEYS_IN_A_QUERY]
        places = ", ".join("?" * len(some))
        rows += connection.execute(
            f"SELECT key, entry FROM reference WHERE key IN ({places})", some
        )
    return rows


def _sealed(key: bytes, value: bytes) -> bytes:
    return value + crc32(key + value).to_bytes(4, "little")
