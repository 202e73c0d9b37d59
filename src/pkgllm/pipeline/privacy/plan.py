"""What a configuration's privacy costs, computed without training; and its refusals.

Which histories clients will have is known before the run: cohorts of the unit ``example``, and
those whose clients add the noise, are drawn from the run's seed, so each client's rounds can be
counted. Otherwise, with the unit ``client``, all share one.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from pkgllm.config import schema
from pkgllm.errors import ConfigError, PrivacyError
from pkgllm.lm.adapter import num_trained_parameters
from pkgllm.pipeline.build import populate, read_corpus, window_settings
from pkgllm.pipeline.privacy.statement import Budgeted, make_guarantee, min_shares
from pkgllm.privacy.accounting import Schedule, calibrate_noise, largest_epsilon
from pkgllm.privacy.mechanisms import Mechanism, of_a_share
from pkgllm.privacy.plans import Plan, Spending
from pkgllm.prompts.windows import hidden_windows

_Number = TypeVar("_Number", int, float)

_SHARES = (0.25, 0.5, 0.75, 1.0)
"""Of the rounds after which a plan tells what is spent, beside the first."""


def plan_privacy(config: schema.Experiment) -> Plan:
    """Return what the whole run of a configuration costs.

    Raises:
        ConfigError: If the configuration asks for no privacy, or its cohort is too large.
        PrivacyError: If its target epsilon cannot be reached.
        PkgllmError: If the corpus or the base model's configuration cannot be read.
    """
    privacy, mode = config.privacy, config.mode
    if isinstance(privacy, schema.NoPrivacy):
        raise ConfigError(
            "privacy.name is none, so there is nothing to plan; set it to example or client"
        )
    num_groups = _num_groups(config)
    if mode.name == "federated" and mode.cohort_size > len(num_groups):
        raise ConfigError(
            f"mode.cohort_size must be at most the number of training clients, {len(num_groups)}, "
            f"got {mode.cohort_size}; lower it"
        )
    noise = settle_noise(config, num_groups)
    spendings = {
        round_num: _spending(config, privacy, num_groups, noise, round_num)
        for round_num in sorted({1, *(max(1, round(share * mode.rounds)) for share in _SHARES)})
    }
    planned = planned_schedules(config, num_groups)
    units = units_by_client(config, num_groups).values()
    last = spendings[mode.rounds]
    return Plan(
        guarantee=make_guarantee(
            config, last.epsilon, last.fact_epsilon, share_epsilon=last.share_epsilon
        ),
        num_clients=len(num_groups),
        num_units=(min(units), max(units)),
        sampling_probability=_ends([s.sampling_probability for s in planned]),
        steps=_ends([s.steps for s in planned]),
        noise_multiplier=noise,
        calibrated=privacy.noise_multiplier is None,
        clip_norm=privacy.clip_norm,
        denominator=_denominator(config, privacy),
        num_parameters=num_trained_parameters(
            config.base_model.name,
            lora_rank=config.adapter.lora_rank,
            target_modules=config.adapter.target_modules,
            freeze_a=config.adapter.freeze_a,
        ),
        by_round=tuple(spendings.values()),
        last_round=_last_round(config, privacy, num_groups, noise, last),
        num_rounds=mode.rounds,
        budget=privacy.budget,
    )


def _num_groups(config: schema.Experiment) -> Mapping[str, int]:
    """Return the groups of each training client that has any."""
    mode = config.mode
    if (
        isinstance(mode, schema.Federated)
        and isinstance(mode.runtime, schema.DeploymentRuntime)
        and config.privacy.name == "client"
    ):
        from pkgllm.federation.flower.deployment.certificates import read_roster

        return known_clients(read_roster(Path(mode.runtime.keys)))
    windows = window_settings(config)
    return {
        split.client: found
        for split in populate(config, read_corpus(config)).in_training
        if (found := sum(1 for _ in hidden_windows(split.train_graph, windows)))
    }


def known_clients(clients: Iterable[str]) -> Mapping[str, int]:
    """Return clients whose groups nobody but they themselves can count, as if each had one.

    With the unit ``client`` only the number of clients matters.
    """
    return dict.fromkeys(clients, 1)


def planned_schedules(
    config: schema.Experiment, num_groups: Mapping[str, int], rounds: int | None = None
) -> tuple[Schedule, ...]:
    """Return the sampling and the steps of everybody to whom releases are charged.

    Args:
        config: With a privacy unit.
        num_groups: Groups of each training client that has any.
        rounds: Rounds to count; all of the run if absent.
    """
    privacy, mode = config.privacy, config.mode
    assert not isinstance(privacy, schema.NoPrivacy)
    rounds = mode.rounds if rounds is None else rounds
    if isinstance(privacy, schema.ClientPrivacy):
        assert mode.name == "federated"
        if not schema.has_local_noise(privacy):
            return (Schedule(mode.cohort_size / len(num_groups), rounds),)
        drawn = _times_drawn(config.seed, mode, num_groups, rounds)
        return tuple(Schedule(1.0, times) for times in drawn.values())
    units = units_by_client(config, num_groups)
    steps = config.training.local_steps
    if mode.name != "federated":
        cohort = mode.cohort_size if mode.name == "centralized" else 1
        counted: Mapping[str, int] = dict.fromkeys(units, rounds * cohort)
    elif mode.runtime.name == "deployment":
        # A client knows of no other, and takes itself for drawn in each round.
        counted = dict.fromkeys(units, rounds)
    else:
        counted = _times_drawn(config.seed, mode, units, rounds)
    return tuple(
        Schedule(min(1.0, privacy.expected_batch_size / units[client]), times * steps)
        for client, times in counted.items()
    )


def _times_drawn(
    seed: int, mode: schema.Federated, clients: Iterable[str], rounds: int
) -> Mapping[str, int]:
    # Flower takes over a second to import, which the other units need not wait for.
    from pkgllm.federation.cohort import sample_cohort

    population = sorted(clients)
    return Counter(
        client
        for round_num in range(1, rounds + 1)
        for client in sample_cohort(population, mode.cohort_size, seed, round_num=round_num)
    )


def units_by_client(config: schema.Experiment, num_groups: Mapping[str, int]) -> Mapping[str, int]:
    """Return among how many units one is hidden, for everybody to whom releases are charged."""
    if config.privacy.name == "client":
        return {"run": len(num_groups)}
    if config.mode.name == "centralized":
        return {"pooled": sum(num_groups.values())}
    return num_groups


def settle_noise(config: schema.Experiment, num_groups: Mapping[str, int]) -> float:
    """Return the noise multiplier of a run, computed from the target epsilon where that is given.

    It is that of all sums of a step together; with adaptive clipping the updates have a larger one.

    Raises:
        PrivacyError: If the target epsilon cannot be reached.
    """
    privacy = config.privacy
    assert not isinstance(privacy, schema.NoPrivacy)
    if privacy.noise_multiplier is not None:
        return privacy.noise_multiplier
    assert privacy.target_epsilon is not None
    noise = calibrate_noise(
        privacy.target_epsilon,
        delta=privacy.delta,
        schedules=planned_schedules(config, num_groups),
        accountant=privacy.accountant,
    )
    clipping = privacy.adaptive_clipping if isinstance(privacy, schema.ClientPrivacy) else None
    if clipping is not None and 2 * clipping.count_noise_std <= noise:
        raise PrivacyError(
            "privacy.adaptive_clipping.count_noise_std must be above half of the noise multiplier "
            f"{noise:.4g} that target_epsilon {privacy.target_epsilon:g} needs, or the count alone "
            f"would spend all of it, got {clipping.count_noise_std:g}; raise it"
        )
    return noise


def check_privacy(config: schema.Experiment, num_groups: Mapping[str, int]) -> None:
    """Fail before anything is trained or written where the guarantee cannot be given.

    Args:
        config: Of the run.
        num_groups: Groups of each training client that has any.

    Raises:
        PrivacyError: If delta is too large for the number of units, or the target epsilon cannot be
            reached.
    """
    privacy = config.privacy
    if isinstance(privacy, schema.NoPrivacy):
        return
    check_delta(privacy, max(units_by_client(config, num_groups).values()))
    settle_noise(config, num_groups)


def check_delta(privacy: Budgeted, num_units: int) -> None:
    """Fail where a mechanism that gives one unit away would pass.

    Raises:
        PrivacyError: If delta is too large for the number of units.
    """
    if privacy.delta >= 1 / num_units:
        whose = "training clients" if privacy.name == "client" else "examples of a client"
        raise PrivacyError(
            f"privacy.delta must be below 1 / {num_units} = {1 / num_units:.3g}, because there are "
            f"{num_units} {whose}, got {privacy.delta:g}; lower it"
        )


def _spending(
    config: schema.Experiment,
    privacy: Budgeted,
    num_groups: Mapping[str, int],
    noise: float,
    round_num: int,
) -> Spending:
    released = [s.mechanism(noise) for s in planned_schedules(config, num_groups, round_num)]

    def largest(mechanisms: Iterable[Mechanism], max_groups: int = 1) -> float:
        return largest_epsilon(
            ([one] for one in mechanisms),
            delta=privacy.delta,
            accountant=privacy.accountant,
            max_groups=max_groups,
        )

    of_fact = (
        largest(released, privacy.max_groups_per_fact)
        if isinstance(privacy, schema.ExamplePrivacy)
        else None
    )
    shares = min_shares(config)
    of_share = None if shares is None else largest(of_a_share(one, shares) for one in released)
    return Spending(round_num, largest(released), of_fact, of_share)


def _last_round(
    config: schema.Experiment,
    privacy: Budgeted,
    num_groups: Mapping[str, int],
    noise: float,
    last: Spending,
) -> int:
    """Return the last round within the budget, found by bisection as epsilon only grows."""
    budget = privacy.budget
    if budget is None or last.epsilon <= budget:
        return last.round_num
    within, beyond = 0, last.round_num
    while beyond - within > 1:
        middle = (within + beyond) // 2
        mechanisms = [[s.mechanism(noise)] for s in planned_schedules(config, num_groups, middle)]
        spent = largest_epsilon(mechanisms, delta=privacy.delta, accountant=privacy.accountant)
        within, beyond = (middle, beyond) if spent <= budget else (within, middle)
    return within


def _denominator(config: schema.Experiment, privacy: Budgeted) -> int:
    if isinstance(privacy, schema.ExamplePrivacy):
        return privacy.expected_batch_size
    assert config.mode.name == "federated"
    return config.mode.cohort_size


def _ends(values: list[_Number]) -> tuple[_Number, _Number]:
    return min(values), max(values)
