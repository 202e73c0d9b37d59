"""Where clients keep their control variates between rounds: one sparse file, two slots a client.

A client's update may be lost after the client has moved on: it comes late, is not usable, or the
server dies and runs the round again. So a client overwrites nothing that the server counts on. The
server says in which round it last accepted an update of the client; the slot of that round is read,
and the other one is written, values first. Whatever happens to the update, the slot that the
server will ask for next is whole, and no checkpoint needs a copy of it, as long as the server
resumes from its newest round.
"""

import math
import os
from collections.abc import Mapping, Sequence
from hashlib import sha256
from io import FileIO
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pkgllm.errors import FederationError
from pkgllm.files import cannot
from pkgllm.lm.adapter import AdapterState

_MAGIC = b"pkgllm controls 1"
_SLOTS = 2


class ControlStore:
    """Control variates of clients, by the round they were made in. Private: mode 0600.

    The file takes room only for clients that were written. It is made where there is none.

    Args:
        path: The file.
        clients: Ids of all clients that may be asked for, in any order; a device has its own alone.
        like: An adapter with the keys and shapes of a control variate.

    Raises:
        RunError: If the file cannot be made or read.
        FederationError: If it is of other clients or other adapters.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     store = ControlStore(Path(folder) / "controls", ["a"], {"x": torch.zeros(2)})
        ...     store.write("a", {"x": torch.ones(2)}, round_num=4, accepted_round=0)
        ...     store.read("a", accepted_round=4)["x"].tolist()
        [1.0, 1.0]
    """

    def __init__(self, path: Path, clients: Sequence[str], like: Mapping[str, Tensor]) -> None:
        self._path = path
        self._shapes = {key: tuple(like[key].shape) for key in sorted(like)}
        self._index = {client: index for index, client in enumerate(sorted(set(clients)))}
        self._num_bytes = 4 * sum(value.numel() for value in like.values())
        described = repr((list(self._index), self._shapes)).encode()
        self._header = _MAGIC + sha256(described).digest()
        try:
            if not path.exists():
                self._make()
            self._file: FileIO = path.open("r+b", buffering=0)
            self._check_header()
        except OSError as error:
            raise cannot("use the clients' control variates in", path, error) from error

    def read(self, client: str, *, accepted_round: int) -> AdapterState:
        """Return the control variate that belongs to a round; zeros for round 0.

        Args:
            client: Whose.
            accepted_round: The last round whose update the server averaged; 0 for none.

        Raises:
            FederationError: If there is none of this round, or the client is unknown.
            RunError: If the file cannot be read.
        """
        rounds = self._rounds_of(client)
        if accepted_round == 0:
            return {key: torch.zeros(shape) for key, shape in self._shapes.items()}
        (found,) = np.nonzero(rounds == accepted_round)
        if not len(found):
            raise FederationError(
                f"{self._path}: client {client!r} must have its control variate of round "
                f"{accepted_round}, has those of rounds {sorted(int(r) for r in rounds if r)}; "
                "resume from the newest checkpoint, or start the run anew"
            )
        try:
            self._file.seek(self._place(client, int(found[0])))
            data = self._file.read(self._num_bytes)
        except OSError as error:
            raise cannot("read", self._path, error) from error
        control, begin = {}, 0
        for key, shape in self._shapes.items():
            value = np.frombuffer(data, np.float32, count=math.prod(shape), offset=begin)
            control[key] = torch.from_numpy(value.reshape(shape).copy())
            begin += value.nbytes
        return control

    def write(
        self, client: str, control: Mapping[str, Tensor], *, round_num: int, accepted_round: int
    ) -> None:
        """Keep a new control variate, and the one of the accepted round with it.

        Args:
            client: Whose.
            control: Float32, with the shapes of the store.
            round_num: The round that made it.
            accepted_round: The round whose control variate it was made from; 0 for none.

        Raises:
            FederationError: If the client is unknown.
            RunError: If the file cannot be written; the accepted one is unharmed.
        """
        row = self._row(client)
        slot = 1 if accepted_round and self._rounds_of(client)[0] == accepted_round else 0
        try:
            # Until all values are on the disk, the slot is of no round.
            self._note(row, slot, 0)
            self._file.seek(self._place(client, slot))
            for key in self._shapes:
                self._file.write(np.ascontiguousarray(control[key].numpy(), np.float32).data)
            self._file.flush()
            os.fdatasync(self._file.fileno())
            self._note(row, slot, round_num)
        except OSError as error:
            raise cannot("write", self._path, error) from error

    def _row(self, client: str) -> int:
        if client not in self._index:
            raise FederationError(f"{self._path}: holds no client {client!r}")
        return self._index[client]

    def _place(self, client: str, slot: int) -> int:
        values = len(self._header) + 8 * _SLOTS * len(self._index)
        return values + (_SLOTS * self._index[client] + slot) * self._num_bytes

    def _note(self, row: int, slot: int, round_num: int) -> None:
        self._file.seek(len(self._header) + 8 * (_SLOTS * row + slot))
        self._file.write(int(round_num).to_bytes(8, "little"))
        self._file.flush()

    def _make(self) -> None:
        temporary = self._path.with_name(f".{self._path.name}.new")
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(self._header)
            file.truncate(self._size)
        temporary.replace(self._path)

    @property
    def _size(self) -> int:
        rounds = 8 * _SLOTS * len(self._index)
        return len(self._header) + rounds + _SLOTS * len(self._index) * self._num_bytes

    def _check_header(self) -> None:
        if self._path.stat().st_size != self._size or (
            self._file.read(len(self._header)) != self._header
        ):
            raise FederationError(
                f"{self._path}: must hold control variates of these {len(self._index)} clients and "
                "this adapter, holds others; take another folder"
            )

    def _rounds_of(self, client: str) -> np.ndarray:
        """Return the rounds of a client's slots, which another process may have written."""
        row = self._row(client)
        try:
            self._file.seek(len(self._header) + 8 * _SLOTS * row)
            return np.frombuffer(self._file.read(8 * _SLOTS), "<i8")
        except OSError as error:
            raise cannot("read", self._path, error) from error
