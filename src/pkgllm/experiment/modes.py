"""Train a policy's adapter: federated, on pooled graphs, or each client alone."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import quote

from peft import PeftModel

from pkgllm.config import schema
from pkgllm.errors import ConfigError
from pkgllm.experiment.assembly import learning_rate, make_objective
from pkgllm.lm.adapter import AdapterState, adapter_state, load_adapter_state, save_adapter
from pkgllm.lm.base_model import BaseModel
from pkgllm.preferences.groups import Group
from pkgllm.progress import Progress
from pkgllm.runs import RunFolder
from pkgllm.training.reference import ReferenceCache
from pkgllm.training.sequential import LocalSteps, SequentialTrainer

Groups = Mapping[str, tuple[Group, ...]]

POOLED = "pooled"
"""The one client of a centralised run, which holds everybody's groups."""

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


def train_policy(
    config: schema.Experiment,
    policy: PeftModel,
    base: BaseModel,
    groups: Groups,
    run: RunFolder,
    progress: Progress,
) -> None:
    """Train as ``config.mode`` says, and leave metrics and adapters in the run folder.

    Afterwards the policy carries the trained adapter, or, in mode ``local``, a fresh one.
    """
    match config.mode:
        case schema.Federated() as mode:
            _federated(config, mode, policy, base, groups, run, progress)
        case schema.Centralized() as mode:
            _centralized(config, mode, policy, base, groups, run, progress)
        case schema.Local() as mode:
            _local(config, mode, policy, base, groups, run, progress)


def _federated(
    config: schema.Experiment,
    mode: schema.Federated,
    policy: PeftModel,
    base: BaseModel,
    groups: Groups,
    run: RunFolder,
    progress: Progress,
) -> None:
    # Flower takes over a second to import, which the other modes need not wait for.
    from pkgllm.federation.rounds import RoundRecord
    from pkgllm.federation.server_app import federate

    rate = _rates(config, mode.rounds)
    with progress.track("rounds", mode.rounds) as advance:

        def on_round(record: RoundRecord) -> None:
            run.append_metrics(
                {
                    "round_num": record.round_num,
                    "learning_rate": rate(record.round_num),
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

        trained = federate(
            trainer=_trainer(config, policy, base, groups, config.training.local_steps),
            clients=sorted(groups),
            initial=adapter_state(policy),
            num_rounds=mode.rounds,
            cohort_size=mode.cohort_size,
            seed=config.seed,
            learning_rate=rate,
            strategy=mode.strategy.name,
            weighting=mode.weighting,
            report_private_metrics=config.privacy.report_private_metrics,
            timeout=mode.round_timeout,
            on_round=on_round,
        )
    _keep(policy, trained, run)


def _centralized(
    config: schema.Experiment,
    mode: schema.Centralized,
    policy: PeftModel,
    base: BaseModel,
    groups: Groups,
    run: RunFolder,
    progress: Progress,
) -> None:
    pooled = {POOLED: tuple(group for client in sorted(groups) for group in groups[client])}
    steps = config.training.local_steps * mode.cohort_size
    trainer = _trainer(config, policy, base, pooled, steps)
    state, rate = adapter_state(policy), _rates(config, mode.rounds)
    with progress.track("rounds", mode.rounds) as advance:
        for round_num in range(1, mode.rounds + 1):
            done = trainer(POOLED, state, round_num=round_num, learning_rate=rate(round_num))
            state = done.adapter
            run.append_metrics(
                {"round_num": round_num, "learning_rate": rate(round_num), "loss": done.loss}
            )
            advance(_detail(done.loss))
    _keep(policy, state, run)


def _local(
    config: schema.Experiment,
    mode: schema.Local,
    policy: PeftModel,
    base: BaseModel,
    groups: Groups,
    run: RunFolder,
    progress: Progress,
) -> None:
    trainer = _trainer(config, policy, base, groups, config.training.local_steps)
    fresh, rate = adapter_state(policy), _rates(config, mode.rounds)
    (run.path / CLIENT_ADAPTERS).mkdir()
    with progress.track("clients", len(groups)) as advance:
        for client in sorted(groups):
            state, loss = fresh, math.nan
            for round_num in range(1, mode.rounds + 1):
                done = trainer(client, state, round_num=round_num, learning_rate=rate(round_num))
                state, loss = done.adapter, done.loss
            load_adapter_state(policy, state)
            name = client_adapter(run.path, client).relative_to(run.path)
            run.write_folder(str(name), lambda folder: save_adapter(policy, folder))
            run.append_metrics({"client": client, "loss": loss})
            advance(_detail(loss))
    _keep(policy, fresh, run)


def _trainer(
    config: schema.Experiment,
    policy: PeftModel,
    base: BaseModel,
    groups: Groups,
    local_steps: int,
) -> SequentialTrainer:
    return SequentialTrainer(
        policy,
        groups,
        make_objective(config.objective),
        ReferenceCache(policy, base.digest),
        steps=LocalSteps(
            optimizer=config.training.optimizer,
            local_steps=local_steps,
            groups_per_step=config.training.groups_per_step,
            max_grad_norm=config.training.max_grad_norm,
            weight_decay=config.training.weight_decay,
        ),
        seed=config.seed,
    )


def _rates(config: schema.Experiment, rounds: int) -> Callable[[int], float]:
    return lambda round_num: learning_rate(config.training, rounds, round_num)


def _keep(policy: PeftModel, state: AdapterState, run: RunFolder) -> None:
    load_adapter_state(policy, state)
    run.write_folder("adapter", lambda folder: save_adapter(policy, folder))


def _detail(loss: float | None, update_norm: float | None = None) -> str:
    parts = {"loss": loss, "update norm": update_norm}
    return ", ".join(f"{name} {value:.4f}" for name, value in parts.items() if value is not None)
