"""Train a policy's adapter: federated, on pooled graphs, or each client alone."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import quote

from peft import PeftModel

from pkgllm.checkpoints import Checkpoint, Checkpoints, Sections
from pkgllm.config import schema
from pkgllm.errors import ConfigError, StoppedError
from pkgllm.experiment.assembly import learning_rate
from pkgllm.experiment.observation import Observer
from pkgllm.experiment.trainers import make_trainer
from pkgllm.lm.adapter import (
    AdapterState,
    adapter_state,
    load_adapter_state,
    save_adapter,
    update_norm,
)
from pkgllm.lm.base_model import BaseModel
from pkgllm.preferences.groups import Group
from pkgllm.progress import Progress
from pkgllm.runs import RunFolder
from pkgllm.training.local import CohortTrainer, TrainedClient

Groups = Mapping[str, tuple[Group, ...]]

POOLED = "pooled"
"""The one client of a centralised run, which holds everybody's groups."""

ADAPTER, STRATEGY = "adapter", "strategy"
"""Sections of a checkpoint."""

_CLIENTS_AT_ONCE = 32

CLIENT_ADAPTERS = "adapters"
"""Folder of a local run that holds one adapter for each training client."""


def client_adapter(run: Path, client: str) -> Path:
    """Return the folder of a client's own adapter; any id makes a safe name."""
    # quote leaves full stops alone, and "." and ".." are folders already.
    return run / CLIENT_ADAPTERS / quote(client, safe="").replace(".", "%2E")


def check_cohort(
    mode: schema.Federated | schema.Centralized | schema.Local, groups: Groups
) -> None:
    """Fail before anything is trained or written where a round cannot be drawn.

    Raises:
        ConfigError: If fewer clients train than a cohort needs.
    """
    if mode.name == "federated" and mode.cohort_size > len(groups):
        raise ConfigError(
            f"mode.cohort_size must be at most the number of training clients, {len(groups)}, "
            f"got {mode.cohort_size}; lower it"
        )


def check_runtime(mode: schema.Federated | schema.Centralized | schema.Local) -> None:
    """Fail before anything is read where what runs the clients is not installed.

    Raises:
        ConfigError: If it is not.
    """
    if mode.name == "federated" and mode.runtime.name == "ray":
        from pkgllm.federation.ray_runtime import check_ray

        check_ray()


@dataclass(frozen=True, slots=True)
class Training:
    """What a policy is trained with, and where it leaves its traces."""

    config: schema.Experiment
    policy: PeftModel
    base: BaseModel
    groups: Groups
    run: RunFolder
    progress: Progress
    observer: Observer
    checkpoints: Checkpoints
    start: Checkpoint | None = None
    """Where to go on."""
    stop_asked: Callable[[], bool] = lambda: False
    """Whether to end after the next checkpoint."""

    @property
    def done(self) -> int:
        """Stretches of training that are done already."""
        return self.start.position if self.start else 0

    def state(self, name: str = ADAPTER) -> AdapterState:
        """Return an adapter of the checkpoint to go on from, or else the policy's."""
        return self.start.section(name) if self.start else adapter_state(self.policy)

    def checkpoint(self, position: int, sections: Sections, *, last: bool) -> None:
        """Write a checkpoint, and end there if that was asked for.

        Raises:
            StoppedError: If training ends here although it is not done.
        """
        self.checkpoints.write(position, sections)
        if self.stop_asked() and not last:
            raise StoppedError(
                f"stopped after a checkpoint; go on with: pkgllm train --resume {self.run.path}"
            )

    def trainer(self, groups: Groups, *, local_steps: int) -> CohortTrainer:
        """Return the engine for some groups."""
        return make_trainer(
            self.config, self.policy, self.base, groups, self.run, local_steps=local_steps
        )

    def learning_rate(self, round_num: int) -> float:
        """Return the local step size of a round."""
        return learning_rate(self.config.training, self.config.mode.rounds, round_num)

    def keep(self, state: AdapterState) -> None:
        """Put an adapter into the policy and into the run folder."""
        load_adapter_state(self.policy, state)
        self.run.write_folder("adapter", lambda folder: save_adapter(self.policy, folder))


def train_policy(training: Training) -> None:
    """Train as the configuration's mode says, and leave metrics and adapters in the run folder.

    Afterwards the policy carries the trained adapter, or, in mode ``local``, a fresh one.
    """
    match training.config.mode:
        case schema.Federated() as mode:
            _federated(training, mode)
        case schema.Centralized() as mode:
            _centralized(training, mode)
        case schema.Local() as mode:
            _local(training, mode)


def _federated(training: Training, mode: schema.Federated) -> None:
    # Flower takes over a second to import, which the other modes need not wait for.
    from pkgllm.federation.client_app import CohortApp
    from pkgllm.federation.rounds import RoundRecord
    from pkgllm.federation.server_app import make_server_app, run_in_process
    from pkgllm.federation.strategies import make_strategy

    config, groups = training.config, training.groups
    with training.progress.track("rounds", mode.rounds) as advance:
        for _ in range(training.done):
            advance()

        def on_round(record: RoundRecord) -> None:
            training.observer.after_round(
                record.round_num,
                record.adapter,
                metrics={
                    "learning_rate": training.learning_rate(record.round_num),
                    "cohort": list(record.cohort),
                    "failed": dict(record.failed),
                    **record.metrics,
                    "update_norm": record.update_norm,
                    "update_norms": asdict(record.spread.norms),
                    "update_cosines": asdict(record.spread.cosines),
                    "bytes_down": record.bytes_down,
                    "bytes_up": record.bytes_up,
                },
                timings={
                    "seconds": record.seconds,
                    "training_seconds": record.training_seconds,
                    "aggregation_seconds": record.aggregation_seconds,
                },
            )
            advance(_detail(record.metrics.get("loss"), record.update_norm))
            training.checkpoint(
                record.round_num,
                {ADAPTER: record.adapter, STRATEGY: record.strategy_state},
                last=record.round_num == mode.rounds,
            )

        server_app = make_server_app(
            strategy=make_strategy(mode.strategy.name),
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
        )
        told = config.privacy.report_private_metrics
        match mode.runtime:
            case schema.LocalRuntime():
                trainer = training.trainer(groups, local_steps=config.training.local_steps)
                cohort_app = CohortApp(
                    trainer, weighting=mode.weighting, report_private_metrics=told
                )
                trained = run_in_process(server_app, cohort_app, sorted(groups))
            case schema.RayRuntime() as runtime:
                from pkgllm.experiment.actor_clients import actor_clients, ray_resources
                from pkgllm.federation.ray_runtime import run_on_ray

                trained = run_on_ray(
                    server_app,
                    actor_clients(training.run, groups, runtime),
                    num_clients=len(groups),
                    resources=ray_resources(runtime),
                    weighting=mode.weighting,
                    report_private_metrics=told,
                    log=training.run.path.resolve() / "clients.log",
                )
    training.keep(trained)


def _centralized(training: Training, mode: schema.Centralized) -> None:
    groups = training.groups
    pooled = {POOLED: tuple(group for client in sorted(groups) for group in groups[client])}
    trainer = training.trainer(
        pooled, local_steps=training.config.training.local_steps * mode.cohort_size
    )
    states = {POOLED: training.state()}
    with training.progress.track("rounds", mode.rounds) as advance:
        for _ in range(training.done):
            advance()
        for round_num in range(training.done + 1, mode.rounds + 1):
            started, rate = time.perf_counter(), training.learning_rate(round_num)
            (done,) = _all_trained(trainer(states, round_num=round_num, learning_rate=rate))
            length = update_norm(states[POOLED], done.adapter)
            states = {POOLED: done.adapter}
            training.observer.after_round(
                round_num,
                done.adapter,
                metrics={"learning_rate": rate, "loss": done.loss, "update_norm": length},
                timings={"seconds": time.perf_counter() - started},
            )
            advance(_detail(done.loss))
            training.checkpoint(round_num, {ADAPTER: done.adapter}, last=round_num == mode.rounds)
    training.keep(states[POOLED])


def _local(training: Training, mode: schema.Local) -> None:
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
                trained = trainer(
                    states,
                    round_num=round_num,
                    learning_rate=training.learning_rate(round_num),
                )
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
                advance(_detail(losses[client]))
            training.checkpoint((number + 1) * mode.rounds, {}, last=number + 1 == len(parts))
    training.keep(fresh)


def _all_trained(trained: Mapping[str, TrainedClient | Exception]) -> list[TrainedClient]:
    """Return what was trained; without a server there is nobody to leave a client out."""
    for done in trained.values():
        if isinstance(done, Exception):
            raise done
    return [done for done in trained.values() if isinstance(done, TrainedClient)]


def _detail(loss: float | None, update_norm: float | None = None) -> str:
    parts = {"loss": loss, "update norm": update_norm}
    return ", ".join(f"{name} {value:.4f}" for name, value in parts.items() if value is not None)
