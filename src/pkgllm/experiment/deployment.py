"""Train as the server of a federation whose clients are on machines of their own."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pkgllm.config.load import dump_config
from pkgllm.config.schema import DeploymentRuntime, Experiment, Federated
from pkgllm.errors import ConfigError, FederationError
from pkgllm.experiment.assembly import LIKED
from pkgllm.experiment.modes import Training, tell_round
from pkgllm.experiment.trainers import check_engine
from pkgllm.files import read_bytes
from pkgllm.lm.adapter import adapter_state, attach_adapter
from pkgllm.lm.base_model import load_base_model
from pkgllm.progress import Progress
from pkgllm.randomness import torch_seed
from pkgllm.runs import RunFolder, provenance

if TYPE_CHECKING:
    from pkgllm.federation.patient_grid import Node

logger = logging.getLogger(__name__)

_POLL_SECONDS = 1.0
_CONNECT_SECONDS = 10.0


def is_deployed(config: Experiment) -> bool:
    """Return whether the clients of a configuration are on machines of their own."""
    return config.mode.name == "federated" and config.mode.runtime.name == "deployment"


def train_deployed(config: Experiment, path: Path, progress: Progress) -> None:
    """Train as the server of a federation whose clients are on machines of their own.

    The run folder gets configuration, metrics and adapter. Nothing is ranked, because the server
    has nobody's graph.

    Args:
        config: What to do; mode ``federated`` with the runtime ``deployment``.
        path: The run folder to make.
        progress: Is told how far the work is.

    Raises:
        PkgllmError: If anything that the configuration names cannot be used.
    """
    from pkgllm.federation.certificates import AUTHORITY_CERTIFICATE, EXECUTOR_SECRET, read_roster
    from pkgllm.federation.patient_grid import PatientGrid
    from pkgllm.federation.records import ARRAYS, to_adapter
    from pkgllm.federation.rounds import RoundRecord
    from pkgllm.federation.server_app import make_server_app, make_strategy
    from pkgllm.federation.superlink import SuperLink, connected_nodes

    mode, runtime = _deployed(config)
    keys = Path(runtime.keys)
    roster = read_roster(keys)
    if mode.cohort_size > len(roster):
        raise ConfigError(
            f"mode.cohort_size must be at most the number of keys in {keys / 'clients'}, "
            f"{len(roster)}, got {mode.cohort_size}; lower it or add clients"
        )
    secret = read_bytes(keys / EXECUTOR_SECRET)
    read_bytes(keys / AUTHORITY_CERTIFICATE)
    run = RunFolder.create(path)
    choice = config.base_model
    base = load_base_model(choice.name, device=choice.device, dtype=choice.dtype)
    policy = attach_adapter(
        base.model,
        lora_rank=config.adapter.lora_rank,
        lora_alpha=config.adapter.lora_alpha,
        target_modules=config.adapter.target_modules,
        seed=torch_seed(config.seed, "adapter"),
        rank_stabilized=config.adapter.rank_stabilized,
        freeze_a=config.adapter.freeze_a,
    )
    check_engine(config, policy)
    training = Training(config, policy, base, {}, run, progress)
    link = SuperLink(runtime.superlink, keys / AUTHORITY_CERTIFICATE)
    link.wait(_CONNECT_SECONDS)
    with link.server_side(secret) as (grid, context):
        nodes = partial(connected_nodes, grid, roster)
        _wait_for_clients(nodes, roster, mode, runtime, progress)
        # From here on the folder is in use; before, a corrected command can take it.
        run.write_text("config.yaml", dump_config(config))
        made_of = provenance(seed=config.seed, digests={"base_model": base.digest})
        run.write_json("provenance.json", {**made_of, "device": str(base.device)})
        run.write_json("split.json", {"digest": None, "left_out": [], "clients": {}})
        run.write_json(LIKED, {"clients": []})
        with progress.track("rounds", mode.rounds) as advance:

            def on_round(record: RoundRecord) -> None:
                tell_round(training, record, advance)

            make_server_app(
                strategy=make_strategy(mode.strategy.name),
                initial=adapter_state(policy),
                num_rounds=mode.rounds,
                cohort_size=mode.cohort_size,
                seed=config.seed,
                learning_rate=training.learning_rate,
                timeout=mode.round_timeout,
                on_round=on_round,
            )(PatientGrid(grid, nodes, poll_seconds=_POLL_SECONDS), context)
        training.keep(to_adapter(context.state.array_records[ARRAYS]))


def _deployed(config: Experiment) -> tuple[Federated, DeploymentRuntime]:
    mode = config.mode
    if isinstance(mode, Federated) and isinstance(mode.runtime, DeploymentRuntime):
        return mode, mode.runtime
    raise ValueError("mode must be federated with the runtime deployment")


def _wait_for_clients(
    nodes: Callable[[], Sequence["Node"]],
    roster: Mapping[str, bytes],
    mode: Federated,
    runtime: DeploymentRuntime,
    progress: Progress,
) -> None:
    end = time.monotonic() + runtime.clients_timeout
    seen: set[str] = set()
    with progress.track("clients connect", len(roster)) as advance:
        while len(seen) < len(roster) and time.monotonic() < end:
            connected = {node.client for node in nodes()}
            for client in sorted(connected - seen):
                advance(client)
            seen |= connected
            time.sleep(_POLL_SECONDS)
    missing = sorted(roster.keys() - seen)
    if len(seen) < mode.cohort_size:
        raise FederationError(
            f"mode.cohort_size must be at most the number of clients that are connected, "
            f"{len(seen)} after {runtime.clients_timeout:g} s, got {mode.cohort_size}; not there: "
            f"{', '.join(missing[:10])}"
        )
    if missing:
        logger.warning("the run goes on without %d clients: %s", len(missing), ", ".join(missing))
