"""The engine of local training that a configuration names."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from peft import PeftModel

from pkgllm.config import schema
from pkgllm.lm.base_model import BaseModel
from pkgllm.lm.lanes.decoder import LaneDecoder
from pkgllm.privacy.clipping import GaussianSettings
from pkgllm.privacy.noise import NoiseSource
from pkgllm.prompts.groups import Group
from pkgllm.runs.folder import RunFolder
from pkgllm.training.cohort import LaneTrainer
from pkgllm.training.lane_passes import reference_scorer
from pkgllm.training.local import CohortTrainer, LocalSteps
from pkgllm.training.private_lanes import Charge, PrivateLaneTrainer
from pkgllm.training.reference import ReferenceCache, ReferenceScore
from pkgllm.training.sequential import SequentialTrainer
from pkgllm.training.sequential import reference_scorer as sequential_reference_scorer

REFERENCE = "reference.sqlite"
"""Reference log-probabilities that do not fit into memory. Private."""

_REFERENCE_BYTES = 256 << 20
_CPU_BYTES = 2 << 30

GPU_SHARE = 0.8
"""Part of a GPU's free memory that training takes."""


@dataclass(frozen=True, slots=True)
class ExampleRelease:
    """What training with privacy unit ``example`` needs beside its configuration."""

    noise_multiplier: float
    """Given, or computed from the target epsilon."""
    noise: NoiseSource
    charge: Charge
    """Is told what is about to be released, before anybody has it."""


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

    Args:
        config: The run's configuration.
        policy: The base model with an adapter.
        base: What the policy was made of.
        groups: Each client's.
        run: Where reference log-probabilities go that do not fit into memory; when None they are
            forgotten and computed again.
        local_steps: Optimiser steps of a client in a round.
        release: How noise is drawn and paid for; with privacy unit ``example`` only, and then
            always.

    Raises:
        ValueError: If the unit is ``example`` and ``release`` is None, or the other way round.
    """
    privacy = config.privacy
    if isinstance(privacy, schema.ExamplePrivacy) != (release is not None):
        raise ValueError(
            "release must be given with privacy.name example and with no other, got "
            f"{'one' if release else 'none'} with {privacy.name}"
        )
    chosen = config.training
    objective = config.objective
    steps = LocalSteps(
        optimizer=chosen.optimizer,
        local_steps=local_steps,
        groups_per_step=chosen.groups_per_step,
        max_grad_norm=chosen.max_grad_norm,
        weight_decay=chosen.weight_decay,
    )
    if chosen.engine == "sequential":
        cache = _cache(sequential_reference_scorer(policy), base, run)
        return SequentialTrainer(policy, groups, objective, cache, steps=steps, seed=config.seed)
    decoder = LaneDecoder(policy, kernel=chosen.attention)
    memory_bytes = _memory_bytes(chosen, base.device)
    reference = _cache(reference_scorer(decoder, memory_bytes), base, run)
    if isinstance(privacy, schema.ExamplePrivacy) and release is not None:
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


def check_engine(config: schema.Experiment, policy: PeftModel) -> None:
    """Fail before any work where the engine cannot train a policy.

    Raises:
        ModelError: If it does not know the base model or the adapted layers.
    """
    if config.training.engine == "lanes":
        LaneDecoder(policy)


def _memory_bytes(chosen: schema.Training, device: torch.device) -> int:
    if chosen.memory_gib is not None:
        return int(chosen.memory_gib * 2**30)
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(GPU_SHARE * free)
    return _CPU_BYTES


def _cache(score: ReferenceScore, base: BaseModel, run: RunFolder | None) -> ReferenceCache:
    return ReferenceCache(
        score,
        base_digest=base.digest,
        memory_bytes=_REFERENCE_BYTES,
        disk=run.path / REFERENCE if run else None,
    )
