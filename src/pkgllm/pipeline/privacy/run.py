"""What keeps the promise of a run: its ledger, its budget, and where its noise comes from."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from pkgllm.config import schema
from pkgllm.errors import ConfigError
from pkgllm.pipeline.privacy.plan import settle_noise, units_by_client
from pkgllm.pipeline.privacy.statement import (
    Budgeted,
    make_guarantee,
    min_shares,
)
from pkgllm.privacy.accounting import largest_epsilon
from pkgllm.privacy.adaptive_clipping import AdaptiveClip
from pkgllm.privacy.ledger import Head, Ledger
from pkgllm.privacy.local_noise import LocalNoise
from pkgllm.privacy.mechanisms import Mechanism, NeighboringRelation, of_a_share
from pkgllm.privacy.noise import NoiseSource, fixed, secure
from pkgllm.privacy.statements import Guarantee
from pkgllm.runs.checkpoints import Checkpoint

LEDGER = "privacy_ledger.jsonl"
"""What was released about whom. Private where it names clients; stays with the run."""

PRIVACY = "privacy"
"""Section of a checkpoint."""

FIXED_NOISE = "insecure_fixed_noise"
"""Key of the provenance: whether private noise came from the seed."""

NOISE_IS_FIXED = "its noise comes from the seed of the run, which is for tests alone"


def open_ledger(config: schema.Experiment, run: Path, start: Checkpoint | None) -> Ledger:
    """Open the ledger of a run that goes on.

    Raises:
        PrivacyError: If it is missing, edited, or not the one of the checkpoint.
    """
    privacy = budgeted(config)
    head = None
    if start is not None:
        told = json.loads(bytes(start.section(PRIVACY)["head"].tolist()))
        head = Head(told["length"], told["digest"])
    return Ledger.open(run / LEDGER, unit=privacy.name, at=head)


def budgeted(config: schema.Experiment) -> Budgeted:
    """Return the privacy of a configuration that has a unit."""
    assert not isinstance(config.privacy, schema.NoPrivacy)
    return config.privacy


def clients_budget(config: schema.Experiment) -> float | None:
    """Return the epsilon that each client keeps to on its own device; None where the run counts."""
    privacy, mode = config.privacy, config.mode
    if not isinstance(privacy, schema.ExamplePrivacy) or mode.name != "federated":
        return None
    return privacy.budget if mode.runtime.name == "deployment" else None


def clients_guarantee(config: schema.Experiment) -> Guarantee | None:
    """Return what clients that keep their own ledgers promise; None where the run counts.

    Nothing is said of a fact, whose epsilon depends on how many groups a client has.
    """
    budget = clients_budget(config)
    if budget is None:
        return None
    return make_guarantee(config, budget, None, kept_by_clients=True)


@dataclass(frozen=True)
class RunPrivacy:
    """The privacy of one run.

    Args:
        config: Of the run, with a privacy unit.
        num_groups: Groups of each training client that has any.
        ledger: Of the run.
        noise: Where noise and private draws come from.
    """

    config: schema.Experiment
    num_groups: Mapping[str, int]
    ledger: Ledger
    noise: NoiseSource

    @cached_property
    def noise_multiplier(self) -> float:
        """Of each release, settled before the first one."""
        return settle_noise(self.config, self.num_groups)

    @property
    def epsilon(self) -> float:
        """What has been spent, by the unit that spent most."""
        privacy = budgeted(self.config)
        return self.ledger.spent(delta=privacy.delta, accountant=privacy.accountant)

    @property
    def share_epsilon(self) -> float | None:
        """What has been spent where shares are seen one by one; None where clients add none."""
        privacy, shares = budgeted(self.config), min_shares(self.config)
        if shares is None:
            return None
        histories = map(self.ledger.history, self.ledger.clients)
        return largest_epsilon(
            ([of_a_share(one, shares) for one in history] for history in histories),
            delta=privacy.delta,
            accountant=privacy.accountant,
        )

    @property
    def local_noise(self) -> LocalNoise | None:
        """How clients protect what they send; None where they add no noise."""
        return local_noise(self.config, self.noise_multiplier)

    @property
    def guarantee(self) -> Guarantee:
        """What the ledger promises now."""
        privacy = budgeted(self.config)
        of_fact = None
        if isinstance(privacy, schema.ExamplePrivacy):
            of_fact = largest_epsilon(
                map(self.ledger.history, self.ledger.clients),
                max_groups=privacy.max_groups_per_fact,
                delta=privacy.delta,
                accountant=privacy.accountant,
            )
        return make_guarantee(
            self.config,
            self.epsilon,
            of_fact,
            share_epsilon=self.share_epsilon,
            not_private=NOISE_IS_FIXED if self.noise.reproducible else None,
        )

    def charge(self, round_num: int, mechanisms: Mapping[str, Mechanism]) -> None:
        """Write releases down; only then may the noisy values leave."""
        self.ledger.charge(round_num, mechanisms)

    def affordable(self, mechanisms: Mapping[str, Mechanism]) -> bool:
        """Return whether releases are within the budget; without one, always."""
        privacy = budgeted(self.config)
        return privacy.budget is None or not self.ledger.would_exceed(
            privacy.budget, mechanisms, delta=privacy.delta, accountant=privacy.accountant
        )

    def cohort_mechanisms(self, cohort: Sequence[str]) -> dict[str, Mechanism]:
        """Return what one round releases about each client of a cohort, whose clients noise it."""
        privacy = budgeted(self.config)
        if schema.has_local_noise(privacy):
            settings = self.local_noise
            assert settings is not None
            return dict.fromkeys(cohort, share_mechanism(settings))
        assert isinstance(privacy, schema.ExamplePrivacy)
        units, mode = units_by_client(self.config, self.num_groups), self.config.mode
        times = mode.cohort_size if mode.name == "centralized" else 1
        return {
            client: Mechanism(
                self.noise_multiplier,
                min(1.0, privacy.expected_batch_size / units[client]),
                times * self.config.training.local_steps,
            )
            for client in cohort
        }

    def section(self, clip_norm: float | None) -> dict[str, Tensor]:
        """Return what a checkpoint keeps: how far the ledger is, and the next clip norm."""
        head = self.ledger.head
        told = json.dumps({"length": head.length, "digest": head.digest}).encode()
        found = {"head": torch.tensor(list(told), dtype=torch.uint8)}
        if clip_norm is not None:
            found["clip_norm"] = torch.tensor(clip_norm, dtype=torch.float64)
        return found


def noise_source(config: schema.Experiment, *, insecure_fixed_noise: bool) -> NoiseSource:
    """Return where a run's noise comes from: the operating system, or the seed, for tests alone."""
    return fixed(config.seed) if insecure_fixed_noise else secure()


def local_noise(config: schema.Experiment, noise_multiplier: float) -> LocalNoise | None:
    """Return how clients protect what they send; None where they add no noise.

    Args:
        config: Of the run.
        noise_multiplier: Given, or computed from the target epsilon.
    """
    shares = min_shares(config)
    if shares is None:
        return None
    return LocalNoise(budgeted(config).clip_norm, noise_multiplier, shares)


def given_noise(config: schema.Experiment) -> LocalNoise | None:
    """Return how clients protect what they send, as far as one can know by itself.

    Raises:
        ConfigError: If the noise would have to be computed, from what only all clients together
            know.
    """
    privacy = config.privacy
    if not schema.has_local_noise(privacy):
        return None
    if privacy.noise_multiplier is None:
        raise ConfigError(
            "privacy.noise_multiplier must be given with privacy.mechanism local in a deployment, "
            "because no client knows of the others what privacy.target_epsilon needs; pkgllm "
            "privacy plan computes it"
        )
    return local_noise(config, privacy.noise_multiplier)


def share_mechanism(settings: LocalNoise) -> Mechanism:
    """Return what a client is charged for a round in which it adds its share of the noise.

    It is what is seen of the sum; the price of the single share follows from it.
    """
    return Mechanism(
        settings.noise_multiplier, 1.0, neighboring_relation=NeighboringRelation.ZERO_OUT_ONE
    )


def clip_of(privacy: schema.ClientPrivacy, start: Checkpoint | None) -> AdaptiveClip:
    """Return the clip norm that a run begins or goes on with."""
    chosen = privacy.adaptive_clipping
    if chosen is None:
        return AdaptiveClip(privacy.clip_norm)
    norm = privacy.clip_norm if start is None else float(start.section(PRIVACY)["clip_norm"])
    return AdaptiveClip(
        norm,
        target_quantile=chosen.target_quantile,
        learning_rate=chosen.learning_rate,
        count_noise_std=chosen.count_noise_std,
    )
