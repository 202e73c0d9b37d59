"""Federated training: the server here, the clients in this process or in Ray's actors."""

import math
from collections.abc import Sequence
from dataclasses import asdict

from pkgllm.config import schema
from pkgllm.federation.algorithms.aggregation import AGGREGATIONS
from pkgllm.federation.client_noise import make_noise
from pkgllm.federation.flower.client_app import CohortApp
from pkgllm.federation.flower.grid import LocalGrid
from pkgllm.federation.flower.transport import FlowerTransport
from pkgllm.federation.limits import UpdateLimits
from pkgllm.federation.round_privacy import ClientLevelRounds, rounds_of_run
from pkgllm.federation.rounds import RoundRecord, Rounds, run_rounds
from pkgllm.lm.adapter import AdapterState, trained_keys
from pkgllm.pipeline.actor_clients import actor_clients
from pkgllm.pipeline.privacy import PRIVACY, client_budget
from pkgllm.pipeline.trainers import make_clients
from pkgllm.pipeline.training_run import ADAPTER, STRATEGY, TrainingRun, detail
from pkgllm.progress import Advance


def train_federated(training: TrainingRun, mode: schema.Federated) -> None:
    """Train round by round, and leave metrics, checkpoints and the adapter in the run folder."""
    clients = sorted(training.groups)
    run = _in_actors if isinstance(mode.runtime, schema.RayRuntime) else _in_this_process
    with training.progress.track("rounds", mode.rounds) as advance:
        for _ in range(training.done):
            advance()
        trained = run(training, mode, rounds_of(training, mode, clients, advance))
    training.keep(trained)


def rounds_of(
    training: TrainingRun, mode: schema.Federated, clients: Sequence[str], advance: Advance
) -> Rounds:
    """Return the rounds of a run, which goes on from its checkpoint.

    ``clients`` are the ids of all training clients; ``advance`` is called after each round.
    """
    privacy = None
    if training.privacy is not None:
        privacy = rounds_of_run(
            training.privacy,
            cohort_size=mode.cohort_size,
            trained=trained_keys(training.policy),
            # An actor trains in a process of its own, and only this one keeps the ledger.
            charges_here=isinstance(mode.runtime, schema.RayRuntime),
        )

    def on_round(record: RoundRecord) -> None:
        _write_down(training, record)
        advance(detail(record.metrics.get("loss"), record.update_norm))
        sections = {ADAPTER: record.adapter, STRATEGY: record.state}
        if training.privacy is not None:
            clip_norm = privacy.clip_norm if isinstance(privacy, ClientLevelRounds) else None
            sections[PRIVACY] = training.privacy.section(clip_norm)
        training.checkpoint(record.round_num, sections, last=record.round_num == mode.rounds)

    return Rounds(
        algorithm=mode.strategy,
        aggregate=AGGREGATIONS[mode.aggregation],
        initial=training.state(),
        num_rounds=mode.rounds,
        cohort_size=mode.cohort_size,
        seed=training.config.seed,
        learning_rate=training.learning_rate,
        local_steps=training.config.training.local_steps,
        timeout=mode.round_timeout,
        min_updates=mode.min_updates,
        limits=_limits(mode, hides_clients=training.config.privacy.hides_clients),
        on_round=on_round,
        first_round=training.done + 1,
        state=training.start.section(STRATEGY) if training.start else None,
        privacy=privacy,
        kl_baseline=training.kl_baseline,
        clients=clients,
    )


def _limits(mode: schema.Federated, *, hides_clients: bool) -> UpdateLimits:
    """Return how much one update may count.

    What one update does to another, as by moving a median, is outside what clipping bounds, so a
    guarantee for clients admits fixed limits alone; and rules that are no sums have their own.
    """
    ratio = mode.max_update_ratio
    compares = mode.strategy.linear and not hides_clients and ratio is not None
    return UpdateLimits(
        equal_weights=mode.weighting == "uniform",
        max_weight_ratio=mode.max_weight_ratio,
        max_norm=math.inf if mode.max_update_norm is None else mode.max_update_norm,
        max_norm_ratio=ratio if compares and ratio is not None else math.inf,
    )


def _in_this_process(training: TrainingRun, mode: schema.Federated, rounds: Rounds) -> AdapterState:
    config, privacy = training.config, training.privacy
    noise = make_noise(privacy.local_noise, training.policy, privacy.noise) if privacy else None
    trainer = training.trainer(training.groups, local_steps=config.training.local_steps)
    app = CohortApp(make_clients(config, mode, trainer, training.run.path, noise))
    return run_rounds(FlowerTransport(LocalGrid(app, sorted(training.groups))), rounds)


def _in_actors(training: TrainingRun, mode: schema.Federated, rounds: Rounds) -> AdapterState:
    from pkgllm.federation.flower.ray.runtime import RayResources, run_on_ray

    runtime = mode.runtime
    assert isinstance(runtime, schema.RayRuntime)
    return run_on_ray(
        rounds,
        actor_clients(training.run, training.groups, runtime, training.privacy),
        num_clients=len(training.groups),
        resources=RayResources(
            cpus_per_client=runtime.cpus_per_client,
            gpus_per_client=runtime.gpus_per_client,
            cpus=runtime.cpus,
            gpus=runtime.gpus,
        ),
        log=training.run.path.resolve() / "clients.log",
    )


def _write_down(training: TrainingRun, record: RoundRecord) -> None:
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
    elif (budget := client_budget(training.config)) is not None:
        metrics["max_epsilon"] = budget
    if record.not_aggregated is not None:
        metrics["not_aggregated"] = record.not_aggregated
    mode, privacy = training.config.mode, training.config.privacy
    if isinstance(mode, schema.Federated) and mode.weighting == "examples":
        metrics["weights"] = dict(record.weights)
    if not privacy.hides_cohort:
        metrics |= {
            "cohort": list(record.cohort),
            "failed": dict(record.failed),
            "bytes_down": record.bytes_down,
            "bytes_up": record.bytes_up,
        }
    if not privacy.hides_clients:
        # Noise on the sum hides how updates differ, best where only their sum is seen.
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
