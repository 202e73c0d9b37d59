"""Train a policy's adapter: federated, on pooled graphs, or each client alone."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from peft import PeftModel

from pkgllm.config import schema
from pkgllm.errors import ConfigError
from pkgllm.experiment.assembly import learning_rate
from pkgllm.experiment.trainers import make_trainer
from pkgllm.lm.adapter import AdapterState, adapter_state, load_adapter_state, save_adapter
from pkgllm.lm.base_model import BaseModel
from pkgllm.preferences.groups import Group
from pkgllm.progress import Progress
from pkgllm.runs import RunFolder
from pkgllm.training.local import CohortTrainer, TrainedClient

if TYPE_CHECKING:
    from pkgllm.federation.rounds import RoundRecord

Groups = Mapping[str, tuple[Group, ...]]

POOLED = "pooled"
"""The one client of a centralised run, which holds everybody's groups."""

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


@dataclass(frozen=True, slots=True)
class Training:
    """What a policy is trained with, and where it leaves its traces."""

    config: schema.Experiment
    policy: PeftModel
    base: BaseModel
    groups: Groups
    run: RunFolder
    progress: Progress

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
    from pkgllm.federation.server_app import federate

    config, groups = training.config, training.groups
    with training.progress.track("rounds", mode.rounds) as advance:

        def on_round(record: "RoundRecord") -> None:
            tell_round(training, record, advance)

        trained = federate(
            trainer=training.trainer(groups, local_steps=config.training.local_steps),
            clients=sorted(groups),
            initial=adapter_state(training.policy),
            num_rounds=mode.rounds,
            cohort_size=mode.cohort_size,
            seed=config.seed,
            learning_rate=training.learning_rate,
            strategy=mode.strategy.name,
            weighting=mode.weighting,
            report_private_metrics=config.privacy.report_private_metrics,
            timeout=mode.round_timeout,
            on_round=on_round,
        )
    training.keep(trained)


def tell_round(training: Training, record: "RoundRecord", advance: Callable[[str], None]) -> None:
    """Write what a federated round did into the metrics, and tell how far the work is."""
    training.run.append_metrics(
        {
            "round_num": record.round_num,
            "learning_rate": training.learning_rate(record.round_num),
            "cohort": list(record.cohort),
            "failed": dict(record.failed),
            **record.metrics,
            "update_norm": record.update_norm,
            "seconds": record.seconds,
            "bytes_down": record.bytes_down,
            "bytes_up": record.bytes_up,
        }
    )
    advance(_detail(record.metrics.get("loss"), record.update_norm))


def _centralized(training: Training, mode: schema.Centralized) -> None:
    groups = training.groups
    pooled = {POOLED: tuple(group for client in sorted(groups) for group in groups[client])}
    trainer = training.trainer(
        pooled, local_steps=training.config.training.local_steps * mode.cohort_size
    )
    states = {POOLED: adapter_state(training.policy)}
    with training.progress.track("rounds", mode.rounds) as advance:
        for round_num in range(1, mode.rounds + 1):
            rate = training.learning_rate(round_num)
            (done,) = _all_trained(trainer(states, round_num=round_num, learning_rate=rate))
            states = {POOLED: done.adapter}
            training.run.append_metrics(
                {"round_num": round_num, "learning_rate": rate, "loss": done.loss}
            )
            advance(_detail(done.loss))
    training.keep(states[POOLED])


def _local(training: Training, mode: schema.Local) -> None:
    policy, run = training.policy, training.run
    trainer = training.trainer(training.groups, local_steps=training.config.training.local_steps)
    fresh = adapter_state(policy)
    (run.path / CLIENT_ADAPTERS).mkdir()
    clients = sorted(training.groups)
    with training.progress.track("clients", len(clients)) as advance:
        for start in range(0, len(clients), _CLIENTS_AT_ONCE):
            states = dict.fromkeys(clients[start : start + _CLIENTS_AT_ONCE], fresh)
            losses = dict.fromkeys(states, math.nan)
            for round_num in range(1, mode.rounds + 1):
                trained = trainer(
                    states,
                    round_num=round_num,
                    learning_rate=training.learning_rate(round_num),
                )
                for client, done in zip(states, _all_trained(trained), strict=True):
                    states[client], losses[client] = done.adapter, done.loss
            for client, state in states.items():
                load_adapter_state(policy, state)
                name = client_adapter(run.path, client).relative_to(run.path)
                run.write_folder(str(name), lambda folder: save_adapter(policy, folder))
                run.append_metrics({"client": client, "loss": losses[client]})
                advance(_detail(losses[client]))
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
