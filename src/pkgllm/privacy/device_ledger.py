"""A person's own ledger and budget, on the person's device, against a server that nobody trusts.

    FOLDER/privacy_ledger.jsonl        what was released of the person, in all runs
    FOLDER/private/privacy_head.json   number and digest of its last entry

A folder has one ledger, and one budget, whatever runs it takes part in. A budget for each run would
bound nothing: the server says what a run is, and could begin one after the other.

The ledger begins with the folder's first private round. That it has begun is known from either
file, and they lie apart: without the ledger nothing is released, and lines that were cut off its
end are missed by the head. Who empties ``private`` loses the head alone, and the budget stays as it
is. Only who removes both begins anew.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from pkgllm.errors import BudgetError, ConfigError, PrivacyError, RunError
from pkgllm.files import write_atomically
from pkgllm.privacy.example_level import ExampleRelease
from pkgllm.privacy.ledger import Head, Ledger
from pkgllm.privacy.local_noise import LocalNoise
from pkgllm.privacy.mechanisms import Mechanism, Unit
from pkgllm.privacy.noise import secure
from pkgllm.privacy.planner import check_privacy
from pkgllm.privacy.run_privacy import LEDGER, spent_on_shares
from pkgllm.privacy.statements import written
from pkgllm.privacy.unit import NoisyUnit, Participation
from pkgllm.runs.records import LedgerHead, read_record

HEAD = "privacy_head.json"
"""Number and digest of the ledger's last entry, in the folder that is private to the process."""

SHARE = "share"
"""Folder of what a device sent last, its share of the noise included; in the same folder."""

logger = logging.getLogger(__name__)


class DeviceLedger:
    """A client's own ledger, and the budget that it keeps to.

    Raises:
        ConfigError: If there is no budget.
        PrivacyError: If the ledger was removed, edited or cut, or is of another unit.
        RunError: If a file cannot be read or written.
    """

    def __init__(self, unit: NoisyUnit, *, ledger: Path, head: Path) -> None:
        if unit.budget is None:
            raise ConfigError(
                "privacy.target_epsilon or privacy.max_epsilon must be given to a client that "
                "keeps its own ledger, or it would release without end; add one to its config.yaml"
            )
        self._unit = unit
        self.budget = unit.budget
        self._head_file = head
        self._ledger = _open(ledger, head, unit.name)

    def spent(self, min_shares: int = 1) -> float:
        """Return epsilon of all that was released; above 1 for whoever sees single shares."""
        return spent_on_shares(self._ledger, self._unit, min_shares)

    def charge(self, round_num: int, mechanisms: Mapping[str, Mechanism]) -> None:
        """Write down what is about to leave, where the budget has room for it.

        Raises:
            BudgetError: If it has not.
            PrivacyError: If somebody else changed the ledger meanwhile.
            RunError: If it cannot be written.
        """
        unit = self._unit
        if self._ledger.would_exceed(
            self.budget, mechanisms, delta=unit.delta, accountant=unit.accountant
        ):
            raise BudgetError(
                f"round {round_num} would exceed the privacy budget of {self.budget:g}, of which "
                f"{written(self.spent())} is spent by this and earlier runs; nothing is sent. "
                "Raise privacy.max_epsilon of this client if its owner agrees"
            )
        _write_head(self._head_file, self._ledger.charge(round_num, mechanisms))


class DevicePrivacy:
    """The privacy of one client's examples, kept by the client.

    The noise that ``target_epsilon`` asks for is computed from the client's own number of groups,
    as if it took part in every round of its configuration, because it knows nothing of cohorts.

    Raises:
        ConfigError: If there is no budget.
        PrivacyError: If delta is too large, the target epsilon cannot be reached, or the ledger was
            removed, edited or cut.
        RunError: If a file cannot be read or written.
    """

    def __init__(
        self, unit: NoisyUnit, participation: Participation, *, ledger: Path, head: Path
    ) -> None:
        self.noise_multiplier = check_privacy(unit, participation)
        self._ledger = DeviceLedger(unit, ledger=ledger, head=head)

    @property
    def release(self) -> ExampleRelease:
        """How noise is drawn and paid for."""
        return ExampleRelease(self.noise_multiplier, secure(), self.charge)

    @property
    def spent(self) -> float:
        """Epsilon of all that was released of the person's examples."""
        return self._ledger.spent()

    def __str__(self) -> str:
        """Return what was spent of the budget, for the person."""
        return (
            f"privacy unit example, noise multiplier {self.noise_multiplier:.4g}; epsilon "
            f"{written(self.spent)} of {self._ledger.budget:g} is spent"
        )

    def charge(self, round_num: int, mechanisms: Mapping[str, Mechanism]) -> None:
        """Write down what is about to leave; see :meth:`DeviceLedger.charge`."""
        self._ledger.charge(round_num, mechanisms)


class DeviceShares:
    """The privacy of one client that adds its share of the noise, kept by the client.

    The budget is that of sums, as everywhere. What the server may learn, which sees single shares,
    is stated beside.

    Raises:
        ConfigError: If there is no budget.
        PrivacyError: If the ledger was removed, edited or cut, or is of another unit.
        RunError: If a file cannot be read or written.
    """

    def __init__(self, unit: NoisyUnit, settings: LocalNoise, *, ledger: Path, head: Path) -> None:
        self.settings = settings
        self._ledger = DeviceLedger(unit, ledger=ledger, head=head)

    def __str__(self) -> str:
        """Return what was spent of the budget, for the person."""
        share_epsilon = self._ledger.spent(self.settings.min_shares)
        return (
            f"privacy unit client, each value of an update is noised by {self.settings.share_std:g}"
            f"; epsilon {written(self._ledger.spent())} of {self._ledger.budget:g} is spent for "
            f"whoever sees only sums, and {written(share_epsilon)} for the server"
        )

    def charge(self, client: str, round_num: int) -> None:
        """Write down a share that is about to be made; see :meth:`DeviceLedger.charge`."""
        self._ledger.charge(round_num, {client: self.settings.mechanism})


def _open(path: Path, head_file: Path, unit: Unit) -> Ledger:
    head = _read_head(head_file)
    if head is None and not path.exists():
        ledger = Ledger.create(path, unit=unit)
    else:
        ledger = Ledger.open(path, unit=unit, at=head)
        if head is None and ledger.head.length:
            logger.warning("%s is missing; %s goes on as it is", head_file, path)
    _write_head(head_file, ledger.head)
    return ledger


def _read_head(path: Path) -> Head | None:
    if not path.exists():
        return None
    try:
        record = read_record(path, LedgerHead)
    except RunError as error:
        raise PrivacyError(f"{error}, which says where {LEDGER} ended") from error
    return Head(record.length, record.digest)


def _write_head(path: Path, head: Head) -> None:
    write_atomically(path, json.dumps(asdict(head)))
