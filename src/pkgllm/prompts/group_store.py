"""Groups of many clients on disk: an Arrow file from which one client is read at a time.

The file is in Arrow's IPC file format with one record batch for each client, so the cost of reading
a client's groups depends on that client alone. Titles repeat from group to group: a batch holds
each distinct completion once, and its groups refer to it by number. A batch without rows ends the
file. Checksums (CRC-32) detect damage: one of each client's content, beside it, and one of the
clients' ids and numbers of groups, in the metadata of the last batch.
"""

import contextlib
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from pkgllm.errors import DataError
from pkgllm.files import cannot, hidden_sibling
from pkgllm.prompts.groups import Completion, Group
from pkgllm.prompts.prompts import Prompt

# Broken corpora hold halves of surrogate pairs, which Arrow's own text type refuses.
_TEXT = pa.binary()
_TOKEN_IDS = pa.list_(pa.int32())
_NUMBERS = pa.list_(pa.int32())

_PROMPT = pa.struct(
    [
        ("client", _TEXT),
        ("facts_text", _TEXT),
        ("text", _TEXT),
        ("token_ids", _TOKEN_IDS),
        ("tails", pa.list_(_TEXT)),
        ("facts_left_out", pa.int64()),
    ]
)
_COMPLETION = pa.struct(
    [("item", _TEXT), ("token_ids", _TOKEN_IDS), ("desirable", pa.bool_()), ("source", _TEXT)]
)
_GROUP = pa.struct([("prompt", _PROMPT), ("completions", _NUMBERS), ("mismatched", _NUMBERS)])
_CONTENT = pa.schema(
    [
        ("client", _TEXT),
        ("num_groups", pa.int32()),
        ("completions", pa.list_(_COMPLETION)),
        ("groups", pa.list_(_GROUP)),
    ]
)
_CHECKSUM = "checksum"
_SCHEMA = _CONTENT.append(pa.field(_CHECKSUM, pa.uint32()))
_INDEX_COLUMNS = [_SCHEMA.get_field_index(name) for name in ("client", "num_groups")]
_INDEX_CHECKSUM = b"index_checksum"
_END = pa.RecordBatch.from_pylist([], schema=_SCHEMA)


class GroupWriter:
    """Writes a store of groups, one client after the other; :meth:`create` makes one."""

    def __init__(self, path: Path, batches: pa.ipc.RecordBatchFileWriter) -> None:
        self._path = path
        self._batches = batches
        self._num_groups: dict[str, int] = {}

    @classmethod
    @contextlib.contextmanager
    def create(cls, path: Path) -> Iterator["GroupWriter"]:
        """Write a file that is whole or not there, and that its owner alone may read.

        It takes its name at the end of the ``with`` block; an exception in there leaves nothing
        behind, and an earlier file of the name unharmed.

        Args:
            path: The file to write or to replace; its folder must exist.

        Raises:
            RunError: If the file cannot be written.
        """
        temporary = hidden_sibling(path)
        with _named_refusals(path):
            file = os.fdopen(
                os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode=0o600), "wb"
            )
        try:
            with _named_refusals(path):
                batches = pa.ipc.new_file(file, _SCHEMA)
            writer = cls(path, batches)
            yield writer
            with _named_refusals(path):
                checksum = _checksum(writer._num_groups)
                batches.write_batch(_END, custom_metadata={_INDEX_CHECKSUM: str(checksum)})
                batches.close()
                file.flush()
                os.fsync(file.fileno())
                temporary.replace(path)
        finally:
            with contextlib.suppress(OSError):
                file.close()
            with contextlib.suppress(OSError):
                temporary.unlink()

    @property
    def num_clients(self) -> int:
        """Clients added so far."""
        return len(self._num_groups)

    def add(self, client: str, groups: Sequence[Group]) -> None:
        """Append a client with its groups, possibly none.

        Raises:
            ValueError: If the client was added before, or a token id does not fit into int32.
            RunError: If the file cannot be written.
        """
        if client in self._num_groups:
            raise ValueError(f"client {client!r} must be added once, was added before")
        try:
            batch = pa.RecordBatch.from_pylist([_row(client, groups)], schema=_CONTENT)
        except (pa.ArrowInvalid, OverflowError) as error:
            raise ValueError(
                f"groups of client {client!r}: token ids must be whole numbers that fit into "
                f"int32: {error}"
            ) from error
        checksum = pa.array([_checksum(batch.to_pylist()[0])], _SCHEMA.field(_CHECKSUM).type)
        with _named_refusals(self._path):
            self._batches.write_batch(
                pa.RecordBatch.from_arrays([*batch.columns, checksum], schema=_SCHEMA)
            )
        self._num_groups[client] = len(groups)


class GroupStore(Mapping[str, tuple[Group, ...]]):
    """Each client's groups, read from the file whenever they are asked for.

    Only the clients' ids and numbers of groups stay in memory. The file is mapped for the moment
    of one reading, so pages of clients read earlier do not add up either. Iteration goes through
    the clients in the order in which they were added.

    Args:
        path: The file; use :meth:`open`.
        num_groups: By client, in the order of the file.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> prompt = Prompt("p1", "", "Recommend movies.", (5, 6), frozenset(), 0)
        >>> group = Group(prompt, (Completion("7", (3, 1), True, "liked"),))
        >>> with TemporaryDirectory() as folder:
        ...     with GroupWriter.create(Path(folder) / "groups.arrow") as writer:
        ...         writer.add("p1", [group, group])
        ...     store = GroupStore.open(Path(folder) / "groups.arrow")
        ...     store["p1"] == (group, group), store.num_groups("p1"), list(store)
        (True, 2, ['p1'])
    """

    def __init__(self, path: Path, num_groups: Mapping[str, int]) -> None:
        self.path = path
        self._num_groups = dict(num_groups)
        self._positions = {client: position for position, client in enumerate(num_groups)}

    @classmethod
    def open(cls, path: Path) -> "GroupStore":
        """Read who is in a file, and nobody's groups.

        Raises:
            DataError: If it is not a whole file that :class:`GroupWriter` wrote.
        """
        options = pa.ipc.IpcReadOptions(included_fields=_INDEX_COLUMNS)
        # Not mapped: the pages around each client's id would be nearly all of the file.
        with _named_damage(path), pa.OSFile(os.fsencode(path)) as file:
            if not pa.ipc.open_file(file).schema.equals(_SCHEMA):
                raise pa.ArrowInvalid("its columns are others")
            reader = pa.ipc.open_file(file, options=options)
            last = reader.num_record_batches - 1
            end = reader.get_batch_with_custom_metadata(last).custom_metadata or {}
            rows = (_only_row(reader.get_batch(position)) for position in range(last))
            num_groups = {_text(row["client"]): row["num_groups"] for row in rows}
            if end.get(_INDEX_CHECKSUM) != str(_checksum(num_groups)).encode():
                raise pa.ArrowInvalid("its list of clients is not what was written")
        return cls(path, num_groups)

    def __getitem__(self, client: str) -> tuple[Group, ...]:
        """Return the client's groups, equal to those that were written.

        Raises:
            KeyError: If the client is not in the store.
            DataError: If the file is gone, or what stands in the client's place is damaged or
                another client's.
        """
        position = self._positions[client]
        with _named_damage(self.path), pa.memory_map(os.fsencode(self.path)) as file:
            row = _only_row(pa.ipc.open_file(file).get_batch(position))
            checksum = row.pop(_CHECKSUM, None)
            if checksum != _checksum(row) or _text(row["client"]) != client:
                raise pa.ArrowInvalid(f"what it holds of client {client!r} was changed")
        return _groups(row)

    def __contains__(self, client: object) -> bool:
        return client in self._positions

    def __iter__(self) -> Iterator[str]:
        return iter(self._positions)

    def __len__(self) -> int:
        return len(self._positions)

    def num_groups(self, client: str) -> int:
        """Return how many groups a client holds, without reading them.

        Raises:
            KeyError: If the client is not in the store.
        """
        return self._num_groups[client]


def _row(client: str, groups: Sequence[Group]) -> dict[str, Any]:
    numbers: dict[Completion, int] = {}

    def refer(completions: Sequence[Completion]) -> list[int]:
        return [numbers.setdefault(completion, len(numbers)) for completion in completions]

    rows = [
        {
            "prompt": {
                "client": _bytes(group.prompt.client),
                "facts_text": _bytes(group.prompt.facts_text),
                "text": _bytes(group.prompt.text),
                "token_ids": group.prompt.token_ids,
                # Sorted, so that equal groups make equal files.
                "tails": sorted(map(_bytes, group.prompt.tails)),
                "facts_left_out": group.prompt.facts_left_out,
            },
            "completions": refer(group.completions),
            "mismatched": refer(group.mismatched),
        }
        for group in groups
    ]
    return {
        "client": _bytes(client),
        "num_groups": len(groups),
        "completions": [
            {
                "item": _bytes(completion.item),
                "token_ids": completion.token_ids,
                "desirable": completion.desirable,
                "source": _bytes(completion.source),
            }
            for completion in numbers
        ],
        "groups": rows,
    }


def _groups(row: Mapping[str, Any]) -> tuple[Group, ...]:
    completions = [
        Completion(
            item=_text(stored["item"]),
            token_ids=tuple(stored["token_ids"]),
            desirable=stored["desirable"],
            source=_text(stored["source"]),  # type: ignore[arg-type]  # one of them was written
        )
        for stored in row["completions"]
    ]
    return tuple(
        Group(
            prompt=Prompt(
                client=_text(group["prompt"]["client"]),
                facts_text=_text(group["prompt"]["facts_text"]),
                text=_text(group["prompt"]["text"]),
                token_ids=tuple(group["prompt"]["token_ids"]),
                tails=frozenset(map(_text, group["prompt"]["tails"])),
                facts_left_out=group["prompt"]["facts_left_out"],
            ),
            completions=tuple(completions[number] for number in group["completions"]),
            mismatched=tuple(completions[number] for number in group["mismatched"]),
        )
        for group in row["groups"]
    )


def _only_row(batch: pa.RecordBatch) -> dict[str, Any]:
    # Arrow trusts what it reads; offsets of a damaged file would lead anywhere in memory.
    batch.validate(full=True)
    if batch.num_rows != 1:
        raise pa.ArrowInvalid(f"a batch must hold one client, holds {batch.num_rows}")
    row: dict[str, Any] = batch.to_pylist()[0]
    return row


def _checksum(row: Mapping[str, Any]) -> int:
    return zlib.crc32(repr(row).encode())


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")


@contextlib.contextmanager
def _named_refusals(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise cannot("write", path, error) from error


@contextlib.contextmanager
def _named_damage(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, pa.ArrowException) as error:
        number = error.errno if isinstance(error, OSError) else None
        reason = os.strerror(number) if number else str(error).partition("\n")[0]
        raise DataError(
            f"{path}: must be a whole store of groups as training writes it: {reason}; train the "
            "run again"
        ) from error
