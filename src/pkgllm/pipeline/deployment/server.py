"""Train as the server of a federation whose clients are on machines of their own."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from peft import PeftModel

from pkgllm.config.load import dump_config
from pkgllm.config.schema import DeploymentRuntime, Experiment, Federated
from pkgllm.corpora.catalogue_file import CATALOGUE, read_catalogue_file
from pkgllm.errors import ConfigError, FederationError
from pkgllm.files import expanded, read_bytes
from pkgllm.lm.base_model import BaseModel
from pkgllm.pipeline.build import (
    check_room,
    make_kl_baseline,
    make_policy,
    make_writer,
)
from pkgllm.pipeline.privacy import (
    FIXED_NOISE,
    check_run,
    configured_noise,
    noise_source,
    noisy_unit,
)
from pkgllm.pipeline.run_record import LIKED, check_goes_back, check_same_base, load_base
from pkgllm.pipeline.trainers import check_engine
from pkgllm.pipeline.training_run import going_on
from pkgllm.privacy.ledger import Ledger
from pkgllm.privacy.noise import NoiseSource
from pkgllm.privacy.run_privacy import LEDGER
from pkgllm.progress import Progress
from pkgllm.runs.folder import RunFolder, provenance
from pkgllm.runs.records import read_object
from pkgllm.training.local import KlBaseline, no_baseline

if TYPE_CHECKING:
    from pkgllm.federation.flower.deployment.retrying_grid import Node

logger = logging.getLogger(__name__)

_POLL_SECONDS = 1.0
_CONNECT_SECONDS = 10.0


def train_deployed(
    config: Experiment,
    path: Path,
    progress: Progress,
    *,
    resume: bool = False,
    from_round: int | None = None,
    keep: int = 2,
    insecure_fixed_noise: bool = False,
) -> None:
    """Train as the server of a federation whose clients are on machines of their own.

    The run folder gets configuration, metrics, checkpoints and adapter. Nothing is ranked, because
    the server has nobody's graph.

    Args:
        config: What to do; mode ``federated`` with the runtime ``deployment``.
        path: The run folder.
        progress: Shows the work.
        resume: Whether to go on with the run in the folder, which has this configuration.
        from_round: Goes back to the checkpoint of this round when it goes on.
        keep: Checkpoints that stay, at least 1.
        insecure_fixed_noise: Whether the server's noise comes from the seed, for tests alone; marks
            the run as not private.

    Raises:
        PkgllmError: If anything that the configuration names cannot be used.
    """
    from pkgllm.federation.flower.deployment.certificates import (
        AUTHORITY_CERTIFICATE,
        EXECUTOR_SECRET,
        read_roster,
    )
    from pkgllm.federation.flower.deployment.retrying_grid import RetryingGrid
    from pkgllm.federation.flower.deployment.superlink import SuperLink, connected_nodes
    from pkgllm.federation.flower.transport import FlowerTransport
    from pkgllm.federation.rounds import run_rounds
    from pkgllm.pipeline.federated import rounds_of

    mode, runtime = _deployed(config)
    _check_noise(config, insecure_fixed_noise=insecure_fixed_noise)
    keys = expanded(runtime.keys)
    roster = read_roster(keys)
    if mode.cohort_size > len(roster):
        raise ConfigError(
            f"mode.cohort_size must be at most the number of keys in {keys / 'clients'}, "
            f"{len(roster)}, got {mode.cohort_size}; lower it or add clients"
        )
    # Of the unit example each client counts its own groups, and keeps its own ledger; of the unit
    # client only the number of clients matters.
    known = dict.fromkeys(roster, 1) if config.privacy.hides_clients else {}
    if known:
        check_run(config, known)
    secret = read_bytes(keys / EXECUTOR_SECRET)
    read_bytes(keys / AUTHORITY_CERTIFICATE)
    run = RunFolder.open(path) if resume else RunFolder.create(path)
    if from_round is not None:
        check_goes_back(run, config)
    if run.adapter.exists():
        logger.warning("run folder %s: the run is finished already", path)
        return
    base = load_base(config)
    if run.provenance.exists():
        check_same_base(run, base)
    policy = make_policy(config, base)
    check_engine(config, policy)
    kl_baseline = _kl_baseline(config, policy, base, keys)
    link = SuperLink(runtime.superlink, keys / AUTHORITY_CERTIFICATE)
    link.wait(_CONNECT_SECONDS)
    with link.server_side(secret) as grid:
        nodes = partial(connected_nodes, grid, roster)
        _wait_for_clients(nodes, roster, mode, runtime, progress)
        # From here on the folder is in use; before, a corrected command can take it.
        was_fixed = run.provenance.exists() and bool(read_object(run.provenance).get(FIXED_NOISE))
        noise = noise_source(config, insecure_fixed_noise=insecure_fixed_noise or was_fixed)
        _describe(config, run, base, noise)
        with going_on(
            config,
            policy,
            base,
            {},
            run,
            progress,
            keep=keep,
            num_groups=known,
            noise=noise,
            kl_baseline=kl_baseline,
            from_round=from_round,
        ) as training:
            with progress.track("rounds", mode.rounds) as advance:
                for _ in range(training.done):
                    advance()
                own_grid = RetryingGrid(grid, nodes, poll_seconds=_POLL_SECONDS)
                rounds = rounds_of(training, mode, sorted(roster), advance)
                adapter = run_rounds(FlowerTransport(own_grid, others_machines=True), rounds)
            training.keep(adapter)


def _kl_baseline(config: Experiment, policy: PeftModel, base: BaseModel, keys: Path) -> KlBaseline:
    """Return the KL baseline of rounds; public prompts are made of a catalogue beside the keys."""
    if not config.objective.takes_baseline:
        return no_baseline
    path = keys / CATALOGUE
    if not path.exists():
        raise ConfigError(
            "objective.kl_baseline public needs the clients' catalogue, of which the server makes "
            f"public prompts, and {path} is missing; copy {CATALOGUE} of a client's folder there"
        )
    catalogue, writer = read_catalogue_file(path), make_writer(config.prompt, base)
    check_room(config.prompt, writer, base, catalogue)
    return make_kl_baseline(config, policy, writer, catalogue)


def _check_noise(config: Experiment, *, insecure_fixed_noise: bool) -> None:
    """Fail where clients would add other noise than this process counts on."""
    configured_noise(config)
    if insecure_fixed_noise and not config.privacy.hides_cohort:
        raise ConfigError(
            "--insecure-fixed-noise does not go with mode.runtime deployment, whose clients draw "
            "their own noise, but for privacy.mechanism central; leave it out"
        )


def _describe(config: Experiment, run: RunFolder, base: BaseModel, noise: NoiseSource) -> None:
    run.write_text("config.yaml", dump_config(config))
    if not run.provenance.exists():
        run.write_json("split.json", {"digest": None, "left_out": [], "clients": {}})
        run.write_json(LIKED, {"clients": []})
        made_of = provenance(seed=config.seed, digests=base.digests)
        unit = noisy_unit(config)
        if unit is not None and unit.hides_clients and not (run.path / LEDGER).exists():
            Ledger.create(run.path / LEDGER, unit=unit.name)
        # Last, since it says that the others are there.
        run.write_json(
            "provenance.json",
            {
                **made_of,
                "configuration": config.model_dump(mode="json"),
                "device": str(base.device),
                FIXED_NOISE: noise.reproducible,
            },
        )


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
