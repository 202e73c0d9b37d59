"""What clients keep between rounds: one private file for each client and round.

A client's update may be lost after the client has moved on: it comes late, is not usable, or the
server dies and runs the round again. So a client overwrites nothing that the server counts on. The
server says in which round it last accepted an update of the client; that state is read, and stays
beside the new one. Whatever happens to the update, the state that the server asks for next is
whole, and no checkpoint needs a copy of it, as long as the server resumes from its newest round.
"""

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from pkgllm.errors import FederationError, RunError
from pkgllm.files import make_folder, read_bytes, write_atomically

ClientState = dict[str, Tensor]
"""Tensors by names of the client's own; on the CPU."""


class ClientStates:
    """States of clients by the round that made them: files of mode 0600 in folders of mode 0700.

    A folder's name is a digest, so that no name says who the client is. Other processes may write
    states of other clients.

    Args:
        folder: Where the clients' folders are; it is made with the first state, in a folder that
            exists.

    Example:
        >>> import tempfile, torch
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     states = ClientStates(Path(folder) / "states")
        ...     states.write("ann", {"x": torch.ones(2)}, round_num=4, accepted_round=0)
        ...     states.read("ann", 4)["x"].tolist()
        [1.0, 1.0]
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def rounds(self, client: str) -> tuple[int, ...]:
        """Return the rounds whose states are kept, in order."""
        paths = self._place(client).glob("*.safetensors")
        return tuple(sorted(int(path.stem) for path in paths if path.stem.isdecimal()))

    def read(self, client: str, round_num: int) -> ClientState:
        """Return the state that a round made.

        Raises:
            FederationError: If none of this round is kept.
            RunError: If the file cannot be read.
        """
        path = self._path(client, round_num)
        if not path.exists():
            raise FederationError(
                f"{self._folder}: client {client!r} must have its state of round {round_num}, has "
                f"those of rounds {list(self.rounds(client))}; resume from the newest checkpoint, "
                "or start the run anew"
            )
        content = read_bytes(path)
        try:
            return load(content)
        except SafetensorError as error:
            raise RunError(
                f"{path}: must hold a client's state, and cannot be read: {error}; restore it, or "
                "remove the folder and start anew"
            ) from error

    def write(
        self, client: str, state: Mapping[str, Tensor], *, round_num: int, accepted_round: int
    ) -> None:
        """Keep a new state, and of those before it the one of the accepted round.

        Args:
            client: Whose.
            state: CPU tensors.
            round_num: The round that made it.
            accepted_round: The last round whose update the server averaged; 0 for none.

        Raises:
            RunError: If it cannot be written; what was there is unharmed.
        """
        path = self._path(client, round_num)
        make_folder(self._folder)
        make_folder(path.parent)
        content = save({name: value.contiguous() for name, value in state.items()})
        write_atomically(path, content)
        for old in self.rounds(client):
            if old not in (round_num, accepted_round):
                self._path(client, old).unlink(missing_ok=True)

    def _place(self, client: str) -> Path:
        return self._folder / sha256(client.encode()).hexdigest()[:16]

    def _path(self, client: str, round_num: int) -> Path:
        return self._place(client) / f"{round_num:06d}.safetensors"
