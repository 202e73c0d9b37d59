"""What was released about whom: a file that only grows, and that tells when it was touched.

Each line charges one release to one client, or to the run where the unit is a client and the draw
of cohorts hides it. It is on the disk before the noisy value may leave. Each line also holds the
SHA-256 of itself and all lines before, so that an edited line, a missing one or one that was put in
is found; lines that are cut off the end are found with the :class:`Head` that a checkpoint keeps.

A round that is done again after a crash draws fresh noise, and whoever saw the first value may
learn from both. So it is charged again: the ledger is never rewound to a checkpoint.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from pkgllm.errors import PrivacyError
from pkgllm.files import cannot
from pkgllm.privacy.accounting import largest_epsilon
from pkgllm.privacy.mechanisms import (
    RUN,
    Accountant,
    History,
    Mechanism,
    NeighboringRelation,
    Unit,
    merge,
)

_ADVICE = "restore the file from a copy, or train anew: the budget is never counted from 0 again"


@dataclass(frozen=True, slots=True)
class Head:
    """How far a ledger reached; what a checkpoint keeps of it."""

    length: int
    """Lines."""
    digest: str
    """SHA-256 of all of them, 64 hexadecimal digits."""


class Ledger:
    """The releases of a run, or of one client, in one file with mode 0600.

    Made by :meth:`create` when a run begins and by :meth:`open` when it goes on.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "ledger.jsonl"
        >>> ledger = Ledger.create(path, unit="client")
        >>> mechanism = Mechanism(noise_multiplier=1.0, sampling_probability=0.1)
        >>> head = ledger.charge(1, {RUN: mechanism})
        >>> Ledger.open(path, unit="client", at=head).head == head
        True
        >>> ledger.would_exceed(2.0, {RUN: mechanism}, delta=1e-3)
        False
    """

    def __init__(self, path: Path, unit: Unit) -> None:
        self._path = path
        self._unit = unit
        self._histories: dict[str, History] = {}
        self._head = Head(0, _digest("", {"ledger": unit}))
        self._size = 0

    @classmethod
    def create(cls, path: Path, *, unit: Unit) -> "Ledger":
        """Make an empty ledger, on the disk.

        Raises:
            PrivacyError: If a file stands there.
            RunError: If it cannot be written.
        """
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except FileExistsError as error:
            raise PrivacyError(
                f"privacy ledger {path}: must not exist when a run begins, but does; go on with "
                "the run it belongs to, or choose another folder"
            ) from error
        except OSError as error:
            raise cannot("write", path, error) from error
        return cls(path, unit)

    @classmethod
    def open(cls, path: Path, *, unit: Unit, at: Head | None = None) -> "Ledger":
        """Read a ledger to go on with it.

        Args:
            path: The file.
            unit: As when it was made.
            at: Where it stood at the checkpoint to go on from. It may have grown since.

        Raises:
            PrivacyError: If it is missing, is not whole, or is another one than the checkpoint's.
        """
        ledger = cls(path, unit)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            ledger._refuse("missing, although the run has begun")
        except OSError as error:
            raise cannot("read", path, error) from error
        seen = at is None or at == ledger.head
        if content and not content.endswith(b"\n"):
            ledger._refuse(f"line {len(content.splitlines())} is cut off")
        for line in content.splitlines():
            ledger._take(ledger._parse(line))
            seen = seen or ledger.head == at
        if not seen:
            assert at is not None
            ledger._refuse(
                f"must hold the {at.length} lines that it is known to have had, holds "
                f"{ledger.head.length} which are cut or others"
            )
        ledger._size = len(content)
        return ledger

    @property
    def head(self) -> Head:
        """How far the ledger reaches now."""
        return self._head

    @property
    def clients(self) -> tuple[str, ...]:
        """Those to whom anything was charged, sorted."""
        return tuple(sorted(self._histories))

    def history(self, client: str = RUN) -> History:
        """Return what was charged to a client, or to the run."""
        return self._histories.get(client, ())

    def charge(self, round_num: int, mechanisms: Mapping[str, Mechanism]) -> Head:
        """Write down releases; only then may the noisy values leave.

        A cohort is charged at once, which the disk confirms once.

        Args:
            round_num: The round, from 1; one that is done again is charged again.
            mechanisms: What is about to be released, by client, or of ``RUN``.

        Returns:
            How far the ledger reaches, for the next checkpoint.

        Raises:
            PrivacyError: If somebody else changed the file meanwhile.
            RunError: If it cannot be written; then nothing was charged, and nothing may leave.
        """
        lines, head = [], self._head
        for client, mechanism in sorted(mechanisms.items()):
            entry = self._entry(head.length + 1, round_num, client, mechanism)
            head = Head(head.length + 1, _digest(head.digest, entry))
            lines.append(f"{_json({**entry, 'chain': head.digest})}\n")
        content = "".join(lines).encode()
        self._append(content)
        self._size += len(content)
        self._head = head
        for client, mechanism in mechanisms.items():
            self._histories[client] = merge((*self.history(client), mechanism))
        return head

    def spent(self, *, delta: float, accountant: Accountant = "prv", max_groups: int = 1) -> float:
        """Return the epsilon of all that was charged: that of the client who spent most.

        Args:
            delta: As for :func:`~pkgllm.privacy.accounting.epsilon`.
            accountant: What prices it.
            max_groups: Above 1 for the epsilon of a fact that enters so many groups.
        """
        return largest_epsilon(
            self._histories.values(), delta=delta, accountant=accountant, max_groups=max_groups
        )

    def would_exceed(
        self,
        max_epsilon: float,
        mechanisms: Mapping[str, Mechanism],
        *,
        delta: float,
        accountant: Accountant = "prv",
    ) -> bool:
        """Whether a budget would be exceeded if these releases were charged as well."""
        after = [(*self.history(client), one) for client, one in mechanisms.items()]
        return largest_epsilon(after, delta=delta, accountant=accountant) > max_epsilon

    def _append(self, content: bytes) -> None:
        try:
            file = os.open(self._path, os.O_WRONLY | os.O_APPEND)
        except FileNotFoundError:
            self._refuse("missing, although the run has begun")
        except OSError as error:
            raise cannot("write", self._path, error) from error
        try:
            if (size := os.fstat(file).st_size) != self._size:
                self._refuse(f"was changed by somebody else: {self._size} bytes became {size}")
            try:
                _write_all(file, content)
                os.fsync(file)
            except OSError as error:
                os.ftruncate(file, self._size)
                raise cannot("write", self._path, error) from error
        finally:
            os.close(file)

    def _entry(
        self, number: int, round_num: int, client: str, mechanism: Mechanism
    ) -> dict[str, object]:
        hidden = mechanism.neighboring_relation is NeighboringRelation.ADD_OR_REMOVE_ONE
        if self._unit == "client" and hidden and client != RUN:
            raise ValueError(f"with unit client all is charged to {RUN!r}, got {client!r}")
        return {
            "number": number,
            "round_num": round_num,
            "unit": self._unit,
            "client": client,
            "noise_multiplier": mechanism.noise_multiplier,
            "sampling_probability": mechanism.sampling_probability,
            "steps": mechanism.steps,
            "neighboring_relation": mechanism.neighboring_relation.value,
        }

    def _parse(self, line: bytes) -> dict[str, Any]:
        try:
            entry = json.loads(line)
        except ValueError:
            entry = None
        if not isinstance(entry, dict):
            self._refuse(f"line {self._head.length + 1} is no entry")
        return entry

    def _take(self, entry: dict[str, Any]) -> None:
        number = self._head.length + 1
        chain = entry.pop("chain", None)
        if chain != _digest(self._head.digest, entry) or entry.get("number") != number:
            self._refuse(f"line {number} was edited, or one before it is missing")
        if entry["unit"] != self._unit:
            self._refuse(f"line {number} must be of unit {self._unit}, is of {entry['unit']}")
        client = entry["client"]
        self._histories[client] = merge((*self.history(client), _mechanism(entry)))
        self._head = Head(number, chain)

    def _refuse(self, reason: str) -> NoReturn:
        raise PrivacyError(f"privacy ledger {self._path}: {reason}; {_ADVICE}")


@dataclass(frozen=True, slots=True)
class ChargedBefore:
    """Takes the place of a charge in a process that does not keep the ledger: looks for one in it.

    The process that keeps the ledger charges releases before it asks for them. Whoever makes them
    in another process refuses, with this, what was not charged, or not as it is about to be made.

    Args:
        path: The ledger; only read, and not checked as :meth:`Ledger.open` does.
    """

    path: Path

    def __call__(self, round_num: int, mechanisms: Mapping[str, Mechanism]) -> None:
        """Compare with the newest charge of each client.

        Raises:
            PrivacyError: If the newest charge of one is missing, or is of something else.
            RunError: If the ledger cannot be read.
        """
        missing = dict(mechanisms)
        try:
            lines = self.path.read_bytes().splitlines()
        except OSError as error:
            raise cannot("read", self.path, error) from error
        # Those of the round in flight stand at the end.
        for line in reversed(lines):
            if not missing:
                break
            entry = json.loads(line)
            mechanism = missing.pop(entry["client"], None)
            if mechanism and (entry["round_num"], _mechanism(entry)) != (round_num, mechanism):
                raise PrivacyError(
                    f"privacy ledger {self.path}: before client {entry['client']} releases "
                    f"{mechanism} in round {round_num} that must be charged, the newest charge is "
                    f"{_mechanism(entry)} in round {entry['round_num']}; nothing is released"
                )
        if missing:
            raise PrivacyError(
                f"privacy ledger {self.path}: nothing was ever charged to {', '.join(missing)}, "
                "which must be before anything is released; nothing is released"
            )


def _mechanism(entry: Mapping[str, Any]) -> Mechanism:
    return Mechanism(
        entry["noise_multiplier"],
        entry["sampling_probability"],
        entry["steps"],
        NeighboringRelation(entry["neighboring_relation"]),
    )


def _digest(before: str, entry: Mapping[str, object]) -> str:
    return hashlib.sha256(f"{before}\n{_json(entry)}".encode()).hexdigest()


def _json(entry: Mapping[str, object]) -> str:
    return json.dumps(entry, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _write_all(file: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(file, rest) :]
