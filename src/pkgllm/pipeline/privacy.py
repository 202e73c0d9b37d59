"""From a configuration to the values that the privacy of its run is made of."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sized
from dataclasses import replace
from functools import partial
from pathlib import Path

from pkgllm.config import schema
from pkgllm.errors import ConfigError
from pkgllm.files import expanded
from pkgllm.lm.adapter import num_trained_parameters
from pkgllm.pipeline.build import populate, read_corpus
from pkgllm.privacy.local_noise import LocalNoise
from pkgllm.privacy.noise import NoiseSource, fixed, secure
from pkgllm.privacy.planner import PrivacyPlan, check_privacy, plan_privacy
from pkgllm.privacy.run_privacy import LEDGER, RunPrivacy, local_noise, open_ledger
from pkgllm.privacy.statements import Guarantee, guarantee_of
from pkgllm.privacy.unit import NoisyUnit, Participation
from pkgllm.prompts.windows import hidden_windows
from pkgllm.runs.checkpoints import Checkpoint

PRIVACY = "privacy"
"""Section of a checkpoint."""

FIXED_NOISE = "insecure_fixed_noise"
"""Key of the provenance: whether private noise came from the seed."""

POOLED = "pooled"
"""The one client of a centralised run, which holds everybody's groups."""


def noisy_unit(config: schema.Experiment) -> NoisyUnit | None:
    """Return the privacy unit of a configuration; None where nothing is guaranteed."""
    return config.privacy if isinstance(config.privacy, NoisyUnit) else None


def participation_of(config: schema.Experiment, num_groups: Mapping[str, int]) -> Participation:
    """Return who takes part in the rounds of a configuration."""
    mode, steps, clients = config.mode, config.training.local_steps, sorted(num_groups)
    cohort_size, min_updates = len(clients), 1
    rounds_by_client = partial(_every_round, clients)
    if isinstance(mode, schema.Centralized):
        num_groups = {POOLED: sum(num_groups.values())}
        steps *= mode.cohort_size
        rounds_by_client = partial(_every_round, [POOLED])
    elif isinstance(mode, schema.Federated):
        cohort_size, min_updates = mode.cohort_size, mode.min_updates
        # In a deployment a client knows of no other, and takes itself for drawn in each round.
        if not (is_deployed(config) and config.privacy.hides_examples):
            rounds_by_client = partial(_rounds_drawn, clients, cohort_size, config.seed)
    return Participation(
        num_clients=len(clients),
        num_groups=num_groups,
        rounds=mode.rounds,
        steps_per_round=steps,
        cohort_size=cohort_size,
        min_updates=min_updates,
        rounds_by_client=rounds_by_client,
    )


def device_participation(config: schema.Experiment, client: str, num_groups: int) -> Participation:
    """Return the participation of a client that knows of no other: all rounds are its own."""
    alone = participation_of(config, {client: num_groups})
    return replace(alone, rounds_by_client=partial(_every_round, [client]))


def is_deployed(config: schema.Experiment) -> bool:
    """Return whether the clients of a configuration are on machines of their own."""
    mode = config.mode
    return isinstance(mode, schema.Federated) and isinstance(mode.runtime, schema.DeploymentRuntime)


def check_cohort(
    mode: schema.Federated | schema.Centralized | schema.Local, clients: Sized
) -> None:
    """Fail before anything is trained or written where a round cannot be drawn.

    Raises:
        ConfigError: If fewer clients train than a cohort needs.
    """
    if isinstance(mode, schema.Federated) and mode.cohort_size > len(clients):
        raise ConfigError(
            f"mode.cohort_size must be at most the number of training clients, {len(clients)}, "
            f"got {mode.cohort_size}; lower it"
        )


def plan_run(config: schema.Experiment) -> PrivacyPlan:
    """Return what the whole run of a configuration costs.

    Raises:
        ConfigError: If the configuration asks for no privacy, or its cohort is too large.
        PrivacyError: If its target epsilon cannot be reached.
        PkgllmError: If the corpus or the base model's configuration cannot be read.
    """
    unit = noisy_unit(config)
    if unit is None:
        raise ConfigError(
            f"privacy.name is {config.privacy.name}, so there is nothing to plan; set it to "
            "example or client"
        )
    num_groups = _num_groups(config, unit)
    check_cohort(config.mode, num_groups)
    num_parameters = num_trained_parameters(
        config.base_model.name,
        lora_rank=config.adapter.lora_rank,
        target_modules=config.adapter.target_modules,
        freeze_a=config.adapter.freeze_a,
    )
    participation = participation_of(config, num_groups)
    return plan_privacy(unit, participation, num_parameters=num_parameters)


def check_run(config: schema.Experiment, num_groups: Mapping[str, int]) -> None:
    """Fail before anything is trained or written where the guarantee cannot be given.

    Raises:
        PrivacyError: If delta is too large for the number of units, or the target epsilon cannot be
            reached.
    """
    if unit := noisy_unit(config):
        check_privacy(unit, participation_of(config, num_groups))


def run_privacy(
    config: schema.Experiment,
    run: Path,
    num_groups: Mapping[str, int],
    noise: NoiseSource,
    start: Checkpoint | None,
) -> RunPrivacy | None:
    """Return the privacy of a run that goes on; None without a unit, or where clients count.

    ``num_groups`` counts the groups of each training client that has any.

    Raises:
        PrivacyError: If the ledger is missing, edited, or not the one of the checkpoint.
    """
    unit = noisy_unit(config)
    if unit is None or client_budget(config) is not None:
        return None
    section = None if start is None else start.section(PRIVACY)
    ledger = open_ledger(run / LEDGER, unit, section)
    return RunPrivacy(unit, participation_of(config, num_groups), ledger, noise, section)


def client_budget(config: schema.Experiment) -> float | None:
    """Return the epsilon that each client keeps to on its own device; None where the run counts."""
    return config.privacy.budget if config.privacy.hides_examples and is_deployed(config) else None


def client_guarantee(config: schema.Experiment) -> Guarantee | None:
    """Return what clients that keep their own ledgers guarantee; None where the run counts.

    Nothing is said of a fact, whose epsilon depends on how many groups a client has.
    """
    budget, unit = client_budget(config), noisy_unit(config)
    if budget is None or unit is None:
        return None
    return guarantee_of(unit, budget, None, kept_by_clients=True)


def noise_source(config: schema.Experiment, *, insecure_fixed_noise: bool) -> NoiseSource:
    """Return where a run's noise comes from: the operating system, or the seed, for tests alone."""
    return fixed(config.seed) if insecure_fixed_noise else secure()


def configured_noise(config: schema.Experiment) -> LocalNoise | None:
    """Return how clients protect what they send, as far as one can know by itself.

    Raises:
        ConfigError: If the noise would have to be computed, from what only all clients together
            know.
    """
    unit = noisy_unit(config)
    if unit is None or not unit.clients_add_noise:
        return None
    if unit.noise_multiplier is None:
        raise ConfigError(
            "privacy.noise_multiplier must be given with privacy.mechanism local in a deployment, "
            "because no client knows of the others what privacy.target_epsilon needs; pkgllm "
            "privacy plan computes it"
        )
    return shared_noise(config, unit.noise_multiplier)


def shared_noise(config: schema.Experiment, noise_multiplier: float) -> LocalNoise | None:
    """Return how clients protect what they send with a noise multiplier; None without noise."""
    unit = noisy_unit(config)
    if unit is None or not isinstance(config.mode, schema.Federated):
        return None
    return local_noise(unit, noise_multiplier, unit.min_shares(config.mode.min_updates))


def _num_groups(config: schema.Experiment, unit: NoisyUnit) -> Mapping[str, int]:
    """Return the groups of each training client that has any."""
    runtime = config.mode.runtime if isinstance(config.mode, schema.Federated) else None
    if isinstance(runtime, schema.DeploymentRuntime) and unit.hides_clients:
        from pkgllm.federation.flower.deployment.certificates import read_roster

        # Nobody but a client can count its groups; here only the number of clients matters.
        return dict.fromkeys(read_roster(expanded(runtime.keys)), 1)
    splits = populate(config, read_corpus(config)).in_training
    num_groups = {
        split.client: sum(
            1
            for _ in hidden_windows(
                split.train_graph, config.groups, max_groups_per_fact=unit.fact_bound
            )
        )
        for split in splits
    }
    return {client: count for client, count in num_groups.items() if count}


def _every_round(clients: Iterable[str], rounds: int) -> Mapping[str, int]:
    return dict.fromkeys(clients, rounds)


def _rounds_drawn(
    clients: list[str], cohort_size: int, seed: int, rounds: int
) -> Mapping[str, int]:
    # Flower takes over a second to import, which the other units need not wait for.
    from pkgllm.federation.cohort import sample_cohort

    return Counter(
        client
        for round_num in range(1, rounds + 1)
        for client in sample_cohort(clients, cohort_size, seed, round_num=round_num)
    )
