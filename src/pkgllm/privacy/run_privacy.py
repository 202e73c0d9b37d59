"""The privacy of a run while it trains: its noise, its ledger and its budget."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from pkgllm.privacy.accounting import largest_epsilon
from pkgllm.privacy.ledger import Head, Ledger
from pkgllm.privacy.local_noise import LocalNoise
from pkgllm.privacy.mechanisms import Mechanism, share_mechanism
from pkgllm.privacy.noise import NoiseSource
from pkgllm.privacy.planner import settle_noise
from pkgllm.privacy.statements import Guarantee, guarantee_of
from pkgllm.privacy.unit import NoisyUnit, Participation
from pkgllm.runs.records import LedgerHead

LEDGER = "privacy_ledger.jsonl"
"""What was released about whom. Private where it names clients; stays with the run."""

NOISE_IS_FIXED = "its noise comes from the seed of the run, which is for tests alone"

_HEAD, _CLIP_NORM = "head", "clip_norm"


@dataclass(frozen=True)
class RunPrivacy:
    """The privacy of one run."""

    unit: NoisyUnit
    participation: Participation
    ledger: Ledger
    noise: NoiseSource
    start: Mapping[str, Tensor] | None = None

    @cached_property
    def noise_multiplier(self) -> float:
        """Of each release, settled before the first one."""
        return settle_noise(self.unit, self.participation)

    @property
    def epsilon(self) -> float:
        """What has been spent, by the unit that spent most."""
        return self.ledger.spent(delta=self.unit.delta, accountant=self.unit.accountant)

    @property
    def share_epsilon(self) -> float | None:
        """What has been spent where shares are seen one by one; None where clients add none."""
        shares = self.unit.min_shares(self.participation.min_updates)
        return None if shares is None else spent_on_shares(self.ledger, self.unit, shares)

    @property
    def local_noise(self) -> LocalNoise | None:
        """How clients protect what they send; None where they add no noise."""
        shares = self.unit.min_shares(self.participation.min_updates)
        return local_noise(self.unit, self.noise_multiplier, shares)

    @property
    def clip_norm(self) -> float:
        """The clip norm that the run begins or goes on with."""
        if self.start is None or _CLIP_NORM not in self.start:
            return self.unit.clip_norm
        return float(self.start[_CLIP_NORM])

    @property
    def guarantee(self) -> Guarantee:
        """What the ledger guarantees now."""
        fact_epsilon, bound = None, self.unit.fact_bound
        if bound is not None:
            fact_epsilon = self.ledger.spent(
                delta=self.unit.delta, accountant=self.unit.accountant, max_groups=bound
            )
        return guarantee_of(
            self.unit,
            self.epsilon,
            fact_epsilon,
            min_shares=self.unit.min_shares(self.participation.min_updates),
            share_epsilon=self.share_epsilon,
            not_private=NOISE_IS_FIXED if self.noise.reproducible else None,
        )

    def releases(self, cohort: Sequence[str]) -> dict[str, Mechanism]:
        """Return what one round of a cohort releases, for everybody whom it is charged to."""
        return self.unit.releases(self.participation, self.noise_multiplier, cohort)

    def charge(self, round_num: int, mechanisms: Mapping[str, Mechanism]) -> None:
        """Write releases down; only then may the noisy values leave."""
        self.ledger.charge(round_num, mechanisms)

    def affordable(self, mechanisms: Mapping[str, Mechanism]) -> bool:
        """Return whether releases are within the budget; without one, always."""
        unit = self.unit
        return unit.budget is None or not self.ledger.would_exceed(
            unit.budget, mechanisms, delta=unit.delta, accountant=unit.accountant
        )

    def section(self, clip_norm: float | None) -> dict[str, Tensor]:
        """Return what a checkpoint keeps: the head of the ledger, and the next clip norm."""
        head = self.ledger.head
        text = json.dumps({"length": head.length, "digest": head.digest}).encode()
        section = {_HEAD: torch.tensor(list(text), dtype=torch.uint8)}
        if clip_norm is not None:
            section[_CLIP_NORM] = torch.tensor(clip_norm, dtype=torch.float64)
        return section


def open_ledger(path: Path, unit: NoisyUnit, start: Mapping[str, Tensor] | None) -> Ledger:
    """Open the ledger of a run that goes on.

    Raises:
        PrivacyError: If it is missing, edited, or not the one of the checkpoint.
    """
    head = None
    if start is not None:
        record = LedgerHead.model_validate_json(bytes(start[_HEAD].tolist()))
        head = Head(record.length, record.digest)
    return Ledger.open(path, unit=unit.name, at=head)


def local_noise(
    unit: NoisyUnit, noise_multiplier: float, min_shares: int | None
) -> LocalNoise | None:
    """Return how clients protect what they send; None where they add no noise."""
    if min_shares is None:
        return None
    return LocalNoise(unit.clip_norm, noise_multiplier, min_shares)


def spent_on_shares(ledger: Ledger, unit: NoisyUnit, min_shares: int) -> float:
    """Return the epsilon of a ledger's releases for whoever sees single shares of the noise."""
    histories = map(ledger.history, ledger.clients)
    return largest_epsilon(
        ([share_mechanism(one, min_shares) for one in history] for history in histories),
        delta=unit.delta,
        accountant=unit.accountant,
    )
