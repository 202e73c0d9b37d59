"""Federated training: the server here, the clients in this process or in Ray's actors."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from pkgllm.config import schema
from pkgllm.federation.algorithms.strategies import make_strategy
from pkgllm.federation.flower.client_app import CohortApp
from pkgllm.federation.flower.server_app import make_server_app, run_in_process
from pkgllm.federation.round_privacy import (
    ClientLevelRounds,
    ExampleLevelRounds,
    LocalNoiseRounds,
    RoundPrivacy,
)
from pkgllm.federation.rounds import RoundRecord, Rounds
from pkgllm.lm.adapter import AdapterState, trained_keys
from pkgllm.pipeline.actor_clients import actor_clients, ray_resources
from pkgllm.pipeline.client_state import make_controls
from pkgllm.pipeline.privacy.client_noise import make_noise
from pkgllm.pipeline.privacy.run import PRIVACY, budgeted, clients_budget, clip_of
from pkgllm.pipeline.training_run import ADAPTER, STRATEGY, Training, detail
from pkgllm.privacy.ledger import RUN
from pkgllm.progress import Advance

if TYPE_CHECKING:
    from flwr.serverapp import ServerApp


def train_federated(training: Training, mode: schema.Federated) -> None:
    """Train round by round, and leave metrics, checkpoints and the adapter in the run folder."""
    clients = sorted(training.groups)
    run_clients = _in_actors if mode.runtime.name == "ray" else _in_this_process
    with training.progress.track("rounds", mode.rounds) as advance:
        for _ in range(training.done):
            advance()
        app = federated_server(training, mode, clients, advance)
        trained = run_clients(training, mode, app, clients)
    training.keep(trained)


def federated_server(
    training: Training, mode: schema.Federated, clients: Sequence[str], advance: Advance
) -> "ServerApp":
    """Return the server of a run, which goes on from the run's checkpoint.

    Args:
        training: The run.
        mode: How clients are drawn and their updates aggregated.
        clients: Ids of all training clients.
        advance: Told of each round.
    """
    config = training.config
    privacy = round_privacy(training, mode)

    def on_round(record: RoundRecord) -> None:
        _tell(training, record)
        advance(detail(record.metrics.get("loss"), record.update_norm))
        sections = {ADAPTER: record.adapter, STRATEGY: record.strategy_state}
        if training.privacy is not None:
            clip_norm = privacy.clip_norm if isinstance(privacy, ClientLevelRounds) else None
            sections[PRIVACY] = training.privacy.section(clip_norm)
        training.checkpoint(record.round_num, sections, last=record.round_num == mode.rounds)

    return make_server_app(
        Rounds(
            strategy=make_strategy(
                mode.strategy.name,
                mode.strategy.model_dump(exclude={"name"}),
                aggregation=mode.aggregation,
                clients=clients,
                local_steps=config.training.local_steps,
            ),
            initial=training.state(),
            num_rounds=mode.rounds,
            cohort_size=mode.cohort_size,
            seed=config.seed,
            learning_rate=training.learning_rate,
            timeout=mode.round_timeout,
            min_updates=mode.min_updates,
            on_round=on_round,
            first_round=training.done + 1,
            strategy_state=training.start.section(STRATEGY) if training.start else None,
            privacy=privacy,
            kl_baseline=training.kl_baseline,
            # What a run promises is computed from all of them, so they are whom cohorts are of.
            clients=clients if privacy is not None else None,
        )
    )


def _in_this_process(
    training: Training, mode: schema.Federated, app: "ServerApp", clients: Sequence[str]
) -> AdapterState:
    steps = training.config.training.local_steps
    promised = training.privacy
    cohort_app = CohortApp(
        training.trainer(training.groups, local_steps=steps),
        weighting=mode.weighting,
        report_private_metrics=training.config.privacy.report_private_metrics,
        controls=make_controls(training.config, training.policy, clients, training.run.path),
        noise=make_noise(
            training.config, training.policy, promised.noise_multiplier, promised.noise
        )
        if promised
        else None,
    )
    return run_in_process(app, cohort_app, clients)


def _in_actors(
    training: Training, mode: schema.Federated, app: "ServerApp", clients: Sequence[str]
) -> AdapterState:
    from pkgllm.federation.flower.ray.runtime import run_on_ray

    assert isinstance(mode.runtime, schema.RayRuntime)
    return run_on_ray(
        app,
        actor_clients(training.run, training.groups, mode.runtime, training.privacy),
        num_clients=len(clients),
        resources=ray_resources(mode.runtime),
        weighting=mode.weighting,
        report_private_metrics=training.config.privacy.report_private_metrics,
        log=training.run.path.resolve() / "clients.log",
    )


def _tell(training: Training, record: RoundRecord) -> None:
    metrics: dict[str, object] = {
        "learning_rate": training.learning_rate(record.round_num),
        **record.metrics,
        "update_norm": record.update_norm,
    }
    if record.kl_baseline is not None:
        metrics["kl_baseline"] = record.kl_baseline
    if training.privacy is not None:
        metrics["epsilon"] = training.privacy.epsilon
        if training.privacy.share_epsilon is not None:
            metrics["share_epsilon"] = training.privacy.share_epsilon
    elif (budget := clients_budget(training.config)) is not None:
        metrics["max_epsilon"] = budget
    privacy = training.config.privacy
    if privacy.name != "client" or schema.has_local_noise(privacy):
        # With that unit the draw hides who took part, unless clients add the noise themselves.
        metrics |= {
            "cohort": list(record.cohort),
            "failed": dict(record.failed),
            "bytes_down": record.bytes_down,
            "bytes_up": record.bytes_up,
        }
    if privacy.name != "client":
        # With that unit the noise hides how updates differ, best where only their sum is seen.
        metrics |= {
            "update_norms": asdict(record.spread.norms),
            "update_cosines": asdict(record.spread.cosines),
        }
    training.observer.after_round(
        record.round_num,
        record.adapter,
        metrics=metrics,
        timings={
            "seconds": record.seconds,
            "training_seconds": record.training_seconds,
            "aggregation_seconds": record.aggregation_seconds,
        },
    )


def round_privacy(training: Training, mode: schema.Federated) -> RoundPrivacy | None:
    """Return what makes a run's rounds private; None where nothing is promised."""
    promised = training.privacy
    if promised is None:
        return None
    privacy = budgeted(training.config)
    if isinstance(privacy, schema.ExamplePrivacy):

        def charge(round_num: int, cohort: Sequence[str]) -> None:
            promised.charge(round_num, promised.cohort_mechanisms(cohort))

        return ExampleLevelRounds(
            lambda cohort: promised.affordable(promised.cohort_mechanisms(cohort)),
            # An actor trains in a process of its own, and only this one keeps the ledger.
            charge if mode.runtime.name == "ray" else None,
        )
    settings = promised.local_noise
    if settings is not None:
        return LocalNoiseRounds(
            settings,
            expected_cohort=mode.cohort_size,
            charge=lambda round_num, cohort: promised.charge(
                round_num, promised.cohort_mechanisms(cohort)
            ),
            affordable=lambda cohort: promised.affordable(promised.cohort_mechanisms(cohort)),
            trained=trained_keys(training.policy),
        )
    return ClientLevelRounds(
        noise_multiplier=promised.noise_multiplier,
        clip=clip_of(privacy, training.start),
        adaptive=privacy.adaptive_clipping is not None,
        num_clients=len(promised.num_groups),
        expected_cohort=mode.cohort_size,
        charge=lambda round_num, mechanism: promised.charge(round_num, {RUN: mechanism}),
        affordable=lambda mechanism: promised.affordable({RUN: mechanism}),
        noise=promised.noise,
        trained=trained_keys(training.policy),
    )
