"""What clients keep between rounds: their own vectors, and where Adam was with them."""

from pathlib import Path

from pkgllm.files import cannot
from pkgllm.runs.checkpoints import Checkpoints, Sections

_NEWCOMER = "newcomer"


class EmbeddingClientStates:
    """States of clients by the round they were made in. On the disk they are private: mode 0600.

    A client overwrites nothing that the server counts on: its two newest states stay, so that a
    round that was cut off can be done again from the one before. After the last round
    :meth:`settle` leaves what ranking needs.

    Args:
        folder: Where one folder for each client is made; None keeps the newest states in memory.
        clients: All of them, sorted. Folders are numbered, so no name of one says who it is.

    Raises:
        RunError: If the folder cannot be made.
    """

    def __init__(self, folder: Path | None, clients: tuple[str, ...]) -> None:
        self._folder = folder
        self._numbers = {client: f"{number:06d}" for number, client in enumerate(clients)}
        self._memory: dict[str, Sections] = {}
        if folder is not None:
            _make(folder)

    def read(self, client: str | None, round_num: int) -> Sections:
        """Return what a client kept after a round; nothing for round 0.

        Args:
            client: Who; None for a newcomer.
            round_num: The last round that it took part in.

        Raises:
            RunError: If there is no such state, or it is damaged.
        """
        if not round_num:
            return {}
        name = self._name(client)
        if self._folder is None:
            return self._memory[name]
        return Checkpoints(self._folder / name, keep=2, private=True).at(round_num).sections

    def write(self, client: str | None, round_num: int, state: Sections) -> None:
        """Keep what a client has after a round, and what it had before.

        Raises:
            RunError: If it cannot be written; what was there is unharmed.
        """
        self._write(client, round_num, state, keep=2)

    def settle(self, client: str, round_num: int) -> None:
        """Leave a client its vectors after its last round alone, a third or less of all it kept.

        Args:
            client: Who.
            round_num: The last round that it took part in, of a training that is done.

        Raises:
            RunError: If there is no such state, or it is damaged or cannot be written.
        """
        tables = self.read(client, round_num).get("tables", {})
        self._write(client, round_num, {"tables": tables}, keep=1)

    def _write(self, client: str | None, round_num: int, state: Sections, *, keep: int) -> None:
        name = self._name(client)
        if self._folder is None:
            self._memory[name] = state
            return
        _make(self._folder / name)
        Checkpoints(self._folder / name, keep=keep, private=True).write(round_num, state)

    def _name(self, client: str | None) -> str:
        return _NEWCOMER if client is None else self._numbers[client]


def _make(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise cannot("make", folder, error) from error
