"""Train a policy's adapter: federated, on pooled graphs, or each client alone."""

import logging
import math
import time
from collections.abc import Mapping

from torch import Tensor

from pkgllm.config import schema
from pkgllm.lm.adapter import (
    AdapterState,
    adapter_state,
    load_adapter_state,
    save_adapter,
    update_norm,
)
from pkgllm.pipeline.privacy import POOLED, PRIVACY
from pkgllm.pipeline.training_run import ADAPTER, TrainingRun, detail
from pkgllm.runs.folder import CLIENT_ADAPTERS, client_adapter
from pkgllm.training.local import CohortTrainer, TrainedClient

logger = logging.getLogger(__name__)

_CLIENTS_AT_ONCE = 32


def check_runtime(mode: schema.Federated | schema.Centralized | schema.Local) -> None:
    """Fail before anything is read where what runs the clients is not installed.

    Raises:
        ConfigError: If it is not.
    """
    if isinstance(mode, schema.Federated) and isinstance(mode.runtime, schema.RayRuntime):
        from pkgllm.federation.flower.ray.runtime import check_ray

        check_ray()


def train_policy(training: TrainingRun) -> None:
    """Train as the configuration's mode says, and leave metrics and adapters in the run folder.

    Afterwards the policy carries the trained adapter, or, in mode ``local``, a fresh one.
    """
    match training.config.mode:
        case schema.Federated() as mode:
            # Flower takes over a second to import, which the other modes need not wait for.
            from pkgllm.pipeline.federated import train_federated

            train_federated(training, mode)
        case schema.Centralized() as mode:
            _centralized(training, mode)
        case schema.Local() as mode:
            _local(training, mode)


def _centralized(training: TrainingRun, mode: schema.Centralized) -> None:
    groups = training.groups
    pooled = {POOLED: tuple(group for client in sorted(groups) for group in groups[client])}
    trainer = training.trainer(
        pooled, local_steps=training.config.training.local_steps * mode.cohort_size
    )
    states = {POOLED: training.state()}
    with training.progress.track("rounds", mode.rounds) as advance:
        for _ in range(training.done):
            advance()
        privacy = training.privacy
        for round_num in range(training.done + 1, mode.rounds + 1):
            if privacy and not privacy.affordable(privacy.releases([POOLED])):
                logger.warning(
                    "round %d would exceed the privacy budget, so training ends before it",
                    round_num,
                )
                break
            started, rate = time.perf_counter(), training.learning_rate(round_num)
            baseline = training.kl_baseline(states[POOLED])
            (done,) = _all_trained(
                trainer(states, round_num=round_num, learning_rate=rate, kl_baseline=baseline)
            )
            length = update_norm(states[POOLED], done.adapter)
            states = {POOLED: done.adapter}
            metrics: dict[str, object] = {"learning_rate": rate}
            loss = done.loss if training.reports_losses else None
            if loss is not None:
                metrics["loss"] = loss
            metrics["update_norm"] = length
            if baseline is not None:
                metrics["kl_baseline"] = baseline
            sections: dict[str, Mapping[str, Tensor]] = {ADAPTER: done.adapter}
            if privacy:
                metrics["epsilon"] = privacy.epsilon
                sections[PRIVACY] = privacy.section(None)
            training.observer.after_round(
                round_num,
                done.adapter,
                metrics=metrics,
                timings={"seconds": time.perf_counter() - started},
            )
            advance(detail(loss, length))
            training.checkpoint(round_num, sections, last=round_num == mode.rounds)
    training.keep(states[POOLED])


def _local(training: TrainingRun, mode: schema.Local) -> None:
    policy, run = training.policy, training.run
    trainer = training.trainer(training.groups, local_steps=training.config.training.local_steps)
    fresh = adapter_state(policy)
    (run.path / CLIENT_ADAPTERS).mkdir(exist_ok=True)
    clients = sorted(training.groups)
    parts = [
        clients[start : start + _CLIENTS_AT_ONCE]
        for start in range(0, len(clients), _CLIENTS_AT_ONCE)
    ]
    # A checkpoint counts the rounds of all parts, one part after the other.
    parts_done, rounds_done = divmod(training.done, mode.rounds)
    with training.progress.track("clients", len(clients)) as advance:
        for _ in range(sum(map(len, parts[:parts_done]))):
            advance()
        for number, part in enumerate(parts[parts_done:], start=parts_done):
            states = dict.fromkeys(part, fresh)
            if rounds_done:
                states = {client: training.state(str(index)) for index, client in enumerate(part)}
            losses = dict.fromkeys(part, math.nan)
            started = time.perf_counter()
            for round_num in range(rounds_done + 1, mode.rounds + 1):
                trained = _trained_alone(training, trainer, states, round_num)
                for client, done in zip(part, _all_trained(trained), strict=True):
                    states[client], losses[client] = done.adapter, done.loss
                if round_num < mode.rounds:
                    training.checkpoint(
                        number * mode.rounds + round_num,
                        {str(index): states[client] for index, client in enumerate(part)},
                        last=False,
                    )
            rounds_done = 0
            seconds = time.perf_counter() - started
            run.append_timings({"clients": len(states), "seconds": seconds, "time": time.time()})
            for client, state in states.items():
                load_adapter_state(policy, state)
                name = client_adapter(run.path, client).relative_to(run.path)
                run.write_folder(str(name), lambda folder: save_adapter(policy, folder))
                run.append_metrics({"client": client, "loss": losses[client]})
                advance(detail(losses[client]))
            training.checkpoint((number + 1) * mode.rounds, {}, last=number + 1 == len(parts))
    training.keep(fresh)


def _trained_alone(
    training: TrainingRun,
    trainer: CohortTrainer,
    states: Mapping[str, AdapterState],
    round_num: int,
) -> dict[str, TrainedClient | Exception]:
    """Train clients alone; those whose adapters have one KL baseline, or none, go through together.

    With a public baseline that is each by itself from the second round on.
    """
    baselines = {client: training.kl_baseline(state) for client, state in states.items()}
    trained: dict[str, TrainedClient | Exception] = {}
    for baseline in dict.fromkeys(baselines.values()):
        trained |= trainer(
            {client: state for client, state in states.items() if baselines[client] == baseline},
            round_num=round_num,
            learning_rate=training.learning_rate(round_num),
            kl_baseline=baseline,
        )
    return {client: trained[client] for client in states}


def _all_trained(trained: Mapping[str, TrainedClient | Exception]) -> list[TrainedClient]:
    """Return what was trained; without a server there is nobody to leave a client out."""
    for done in trained.values():
        if isinstance(done, Exception):
            raise done
    return [done for done in trained.values() if isinstance(done, TrainedClient)]
