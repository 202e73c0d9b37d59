"""What trains the clients of a run: the engine that a configuration names, and what it keeps."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from peft import PeftModel

from pkgllm.config import schema
from pkgllm.corpora.catalogue import Catalogue
from pkgllm.federation.client_noise import ClientNoise
from pkgllm.federation.client_state import ClientStates
from pkgllm.federation.clients import LocalClients
from pkgllm.lm.base_model import BaseModel
from pkgllm.lm.decoder import check_layout
from pkgllm.lm.lanes.decoder import LaneDecoder
from pkgllm.pipeline.build import check_room, make_policy, make_writer
from pkgllm.pipeline.run_record import load_base
from pkgllm.privacy.clipping import GaussianSettings
from pkgllm.privacy.example_level import ExampleRelease
from pkgllm.privacy.units.example import ExamplePrivacy
from pkgllm.prompts.groups import Group
from pkgllm.prompts.prompts import PromptWriter
from pkgllm.runs.folder import RunFolder
from pkgllm.training.cohort import LaneTrainer
from pkgllm.training.lane_passes import reference_scorer
from pkgllm.training.local import CohortTrainer, LocalSteps
from pkgllm.training.private_lanes import PrivateLaneTrainer
from pkgllm.training.reference import ReferenceColumn
from pkgllm.training.sequential import SequentialTrainer
from pkgllm.training.sequential import reference_scorer as sequential_reference_scorer
from pkgllm.training.trl_engine import TrlTrainer, check_trl

STATES = "client_states"
"""Folder of what clients keep between rounds. Private, and gone when training is done."""

_CPU_BYTES = 2 << 30

GPU_SHARE = 0.8
"""Part of a GPU's free memory that training takes."""


def make_trainer(
    config: schema.Experiment,
    policy: PeftModel,
    base: BaseModel,
    groups: Mapping[str, Sequence[Group]],
    run: RunFolder | None,
    *,
    local_steps: int,
    release: ExampleRelease | None = None,
) -> CohortTrainer:
    """Return what trains clients from the adapters they receive.

    The column of reference log-probabilities lies in the folder of ``run``, or in memory without
    one. ``release`` says how noise is drawn and accounted for; it goes with privacy unit
    ``example``, and only with it.

    Raises:
        ConfigError: If the engine is not installed, or cannot train for the objective.
        ValueError: If the unit is ``example`` and ``release`` is None, or the other way round.
    """
    privacy, training = config.privacy, config.training
    if privacy.hides_examples != (release is not None):
        raise ValueError(
            "release must be given with privacy.name example and with no other, got "
            f"{'one' if release else 'none'} with {privacy.name}"
        )
    objective = config.objective
    steps = LocalSteps(
        optimizer=training.optimizer,
        local_steps=local_steps,
        groups_per_step=training.groups_per_step,
        max_grad_norm=training.max_grad_norm,
        weight_decay=training.weight_decay,
    )
    folder = run.path if run else None
    match training.engine:
        case "trl":
            return TrlTrainer(
                policy, groups, objective, base.tokenizer, steps=steps, seed=config.seed
            )
        case "sequential":
            reference = ReferenceColumn(sequential_reference_scorer(policy), folder)
            return SequentialTrainer(
                policy, groups, objective, reference, steps=steps, seed=config.seed
            )
        case "lanes":
            decoder = LaneDecoder(policy, kernel=training.attention)
            memory_bytes = _memory_bytes(training, base.device)
            reference = ReferenceColumn(reference_scorer(decoder, memory_bytes), folder)
    if isinstance(privacy, ExamplePrivacy) and release is not None:
        return PrivateLaneTrainer(
            decoder,
            groups,
            objective,
            reference,
            steps=steps,
            settings=GaussianSettings(
                privacy.clip_norm, release.noise_multiplier, privacy.expected_batch_size
            ),
            noise=release.noise,
            charge=release.charge,
            memory_bytes=memory_bytes,
        )
    return LaneTrainer(
        decoder,
        groups,
        objective,
        reference,
        steps=steps,
        seed=config.seed,
        memory_bytes=memory_bytes,
    )


def make_clients(
    config: schema.Experiment,
    mode: schema.Federated,
    trainer: CohortTrainer,
    folder: Path,
    noise: ClientNoise | None,
) -> LocalClients:
    """Return what trains the clients of a run and keeps their states below a folder.

    ``noise`` protects their updates, where the server counts on it.
    """
    return LocalClients(
        trainer,
        mode.strategy,
        local_steps=config.training.local_steps,
        weighting=mode.weighting,
        report_private_metrics=config.privacy.report_private_metrics,
        states=ClientStates(folder / STATES),
        noise=noise,
    )


def load_policy(
    config: schema.Experiment, catalogue: Catalogue
) -> tuple[BaseModel, PromptWriter, PeftModel]:
    """Load the base model; return it with what writes its prompts, and with a fresh adapter on it.

    Raises:
        ModelError: If it cannot be loaded, or the engine does not know it.
        ConfigError: If a prompt or a title does not fit, or the engine cannot train the objective.
    """
    base = load_base(config)
    writer = make_writer(config.prompt, base)
    check_room(config.prompt, writer, base, catalogue)
    policy = make_policy(config, base)
    check_engine(config, policy)
    return base, writer, policy


def check_engine(config: schema.Experiment, policy: PeftModel) -> None:
    """Fail before any work where a policy cannot be trained by the engine, or ranked afterwards.

    Raises:
        ConfigError: If the engine is not installed, or cannot train for the objective.
        ModelError: If the base model or an adapted layer is not one that is ranked.
    """
    check_layout(policy)
    match config.training.engine:
        case "trl":
            check_trl(config.objective)
        case "lanes":
            LaneDecoder(policy)
        case "sequential":
            pass


def _memory_bytes(training: schema.Training, device: torch.device) -> int:
    if training.memory_gib is not None:
        return int(training.memory_gib * 2**30)
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(GPU_SHARE * free)
    return _CPU_BYTES
