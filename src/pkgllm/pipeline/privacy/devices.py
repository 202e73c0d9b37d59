"""What keeps a person's promise on the person's own device, against a server that nobody trusts.

    FOLDER/privacy_ledger.jsonl        what was released of the person, in all runs
    FOLDER/private/privacy_head.json   how far that ledger reached

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

from pkgllm.config import schema
from pkgllm.errors import BudgetError, ConfigError, PrivacyError
from pkgllm.files import cannot, write_atomically
from pkgllm.pipeline.privacy.plan import check_delta
from pkgllm.pipeline.privacy.run import LEDGER, given_noise, share_mechanism
from pkgllm.pipeline.privacy.statement import Budgeted
from pkgllm.pipeline.trainers import ExampleRelease
from pkgllm.privacy.accounting import Schedule, calibrate_noise, largest_epsilon
from pkgllm.privacy.ledger import Head, Ledger
from pkgllm.privacy.mechanisms import Mechanism, Unit, of_a_share
from pkgllm.privacy.noise import secure
from pkgllm.privacy.statements import written

HEAD = "privacy_head.json"
"""How far the ledger reached, in the folder of what is private to the process."""

SHARE = "share"
"""Folder of what a device sent last, its share of the noise included; in the same folder."""

logger = logging.getLogger(__name__)


class DeviceLedger:
    """A client's own ledger, and the budget that it keeps to.

    Args:
        privacy: Of the client's own configuration.
        ledger: The ledger's file.
        head: File that tells how far it reached.

    Raises:
        ConfigError: If there is no budget.
        PrivacyError: If the ledger was removed, edited or cut, or is of another unit.
        RunError: If a file cannot be read or written.
    """

    def __init__(self, privacy: Budgeted, *, ledger: Path, head: Path) -> None:
        if privacy.budget is None:
            raise ConfigError(
                "privacy.target_epsilon or privacy.max_epsilon must be given to a client that "
                "keeps its own ledger, or it would release without end; add one to its config.yaml"
            )
        self._privacy = privacy
        self.budget = privacy.budget
        self._head_file = head
        self._ledger = _open(ledger, head, privacy.name)

    def spent(self, min_shares: int = 1) -> float:
        """Return epsilon of all that was released; above 1 for whoever sees single shares."""
        privacy = self._privacy
        histories = map(self._ledger.history, self._ledger.clients)
        return largest_epsilon(
            ([of_a_share(one, min_shares) for one in history] for history in histories),
            delta=privacy.delta,
            accountant=privacy.accountant,
        )

    def charge(self, round_num: int, mechanisms: Mapping[str, Mechanism]) -> None:
        """Write down what is about to leave, where the budget has room for it.

        Raises:
            BudgetError: If it has not.
            PrivacyError: If somebody else changed the ledger meanwhile.
            RunError: If it cannot be written.
        """
        privacy = self._privacy
        if self._ledger.would_exceed(
            self.budget, mechanisms, delta=privacy.delta, accountant=privacy.accountant
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

    Args:
        privacy: Of the client's own configuration.
        num_groups: Groups of the client, at least 1.
        num_steps: Local steps of all rounds of the client's own configuration.
        ledger: The ledger's file.
        head: File that tells how far it reached.

    Raises:
        ConfigError: If there is no budget.
        PrivacyError: If delta is too large, the target epsilon cannot be reached, or the ledger was
            removed, edited or cut.
        RunError: If a file cannot be read or written.
    """

    def __init__(
        self,
        privacy: schema.ExamplePrivacy,
        *,
        num_groups: int,
        num_steps: int,
        ledger: Path,
        head: Path,
    ) -> None:
        check_delta(privacy, num_groups)
        self.noise_multiplier = _noise_multiplier(privacy, num_groups, num_steps)
        self._ledger = DeviceLedger(privacy, ledger=ledger, head=head)

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
    is told beside.

    Args:
        config: The client's own.
        ledger: The ledger's file.
        head: File that tells how far it reached.

    Raises:
        ConfigError: If there is no budget, or the client cannot know the noise.
        PrivacyError: If the ledger was removed, edited or cut, or is of another unit.
        RunError: If a file cannot be read or written.
    """

    def __init__(self, config: schema.Experiment, *, ledger: Path, head: Path) -> None:
        settings = given_noise(config)
        assert settings is not None
        assert isinstance(config.privacy, schema.ClientPrivacy)
        self.settings = settings
        self._ledger = DeviceLedger(config.privacy, ledger=ledger, head=head)

    def __str__(self) -> str:
        """Return what was spent of the budget, for the person."""
        of_shares = self._ledger.spent(self.settings.min_shares)
        return (
            f"privacy unit client, each value of an update is noised by {self.settings.share_std:g}"
            f"; epsilon {written(self._ledger.spent())} of {self._ledger.budget:g} is spent for "
            f"whoever sees only sums, and {written(of_shares)} for the server"
        )

    def charge(self, client: str, round_num: int) -> None:
        """Write down a share that is about to be made; see :meth:`DeviceLedger.charge`."""
        self._ledger.charge(round_num, {client: share_mechanism(self.settings)})


def _noise_multiplier(privacy: schema.ExamplePrivacy, num_groups: int, num_steps: int) -> float:
    if privacy.noise_multiplier is not None:
        return privacy.noise_multiplier
    assert privacy.target_epsilon is not None
    probability = min(1.0, privacy.expected_batch_size / num_groups)
    return calibrate_noise(
        privacy.target_epsilon,
        delta=privacy.delta,
        schedules=[Schedule(probability, num_steps)],
        accountant=privacy.accountant,
    )


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
    try:
        told = json.loads(path.read_bytes())
        return Head(int(told["length"]), str(told["digest"]))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise cannot("read", path, error) from error
    except (ValueError, TypeError, KeyError) as error:
        raise PrivacyError(
            f"{path}: must tell how far {LEDGER} reached, as this program writes it: {error!r}; "
            "restore it from a copy"
        ) from error


def _write_head(path: Path, head: Head) -> None:
    write_atomically(path, json.dumps(asdict(head)))
