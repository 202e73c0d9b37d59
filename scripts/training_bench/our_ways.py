"""Our two engines of local training, and the gradients of single examples."""

import copy
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from peft import PeftModel
from torch import Tensor

from pkgllm.lm.adapter import AdapterState, attach_adapter
from pkgllm.lm.lanes.decoder import LaneDecoder
from pkgllm.lm.lanes.lora_factors import StackedFactors
from pkgllm.objectives.objective import Objective
from pkgllm.privacy.clipping import GaussianSettings
from pkgllm.privacy.example_level import Charge
from pkgllm.privacy.noise import secure
from pkgllm.prompts.groups import Group
from pkgllm.training import lane_passes, sequential
from pkgllm.training.batches import branches_of
from pkgllm.training.cohort import LaneTrainer
from pkgllm.training.example_gradients import example_gradients
from pkgllm.training.lane_losses import lane_losses
from pkgllm.training.local import CohortTrainer, LocalSteps
from pkgllm.training.private_lanes import PrivateLaneTrainer
from pkgllm.training.reference import ReferenceColumn
from pkgllm.training.sequential import SequentialTrainer
from training_bench.measure import Clock
from training_bench.workload import (
    APO_ZERO,
    GROUPS_PER_CLIENT,
    LORA_ALPHA,
    LORA_RANK,
    MAX_GRAD_NORM,
    SEED,
    Workload,
)


def make_policy(workload: Workload) -> PeftModel:
    """Return a copy of the base model with an adapter."""
    return attach_adapter(
        copy.deepcopy(workload.base.model),
        lora_rank=LORA_RANK,
        lora_alpha=LORA_ALPHA,
        target_modules="all-linear",
        seed=SEED,
    )


def sequential_trainer(
    workload: Workload, policy: PeftModel, objective: Objective, *, steps: int
) -> SequentialTrainer:
    """Return the plain loop over clients, with nothing remembered yet."""
    return SequentialTrainer(
        policy,
        workload.groups,
        objective,
        ReferenceColumn(sequential.reference_scorer(policy)),
        steps=_local_steps(steps),
        seed=SEED,
    )


def trl_engine(
    workload: Workload, policy: PeftModel, objective: Objective, *, steps: int
) -> CohortTrainer:
    """Return the engine that runs TRL's trainers; needs the package trl."""
    from pkgllm.training.trl_engine import TrlTrainer

    return TrlTrainer(
        policy,
        workload.groups,
        objective,
        workload.base.tokenizer,
        steps=_local_steps(steps),
        seed=SEED,
    )


def lane_trainer(
    workload: Workload,
    decoder: LaneDecoder,
    objective: Objective,
    *,
    steps: int,
    memory_bytes: int,
) -> LaneTrainer:
    """Return the lane engine, with nothing remembered yet."""
    return LaneTrainer(
        decoder,
        workload.groups,
        objective,
        ReferenceColumn(lane_passes.reference_scorer(decoder, memory_bytes)),
        steps=_local_steps(steps),
        seed=SEED,
        memory_bytes=memory_bytes,
    )


def private_trainer(
    workload: Workload,
    decoder: LaneDecoder,
    objective: Objective,
    *,
    steps: int,
    settings: GaussianSettings,
    charge: Charge,
    memory_bytes: int,
) -> PrivateLaneTrainer:
    """Return the lane engine with noise on every step, with nothing remembered yet."""
    return PrivateLaneTrainer(
        decoder,
        workload.groups,
        objective,
        ReferenceColumn(lane_passes.reference_scorer(decoder, memory_bytes)),
        steps=_local_steps(steps),
        settings=settings,
        noise=secure(),
        charge=charge,
        memory_bytes=memory_bytes,
    )


def _local_steps(steps: int) -> LocalSteps:
    return LocalSteps(
        local_steps=steps, groups_per_step=GROUPS_PER_CLIENT, max_grad_norm=MAX_GRAD_NORM
    )


@dataclass(frozen=True, slots=True)
class ExampleCost:
    """What the gradient of every example by itself costs, against that of the batch."""

    seconds: float
    """Of a client's examples, one by one; median over clients."""
    plain_seconds: float
    """Of a client's batch; median over clients."""
    ratio: float
    """Of the two, median over clients."""
    max_difference: float
    """Between the mean of the examples' gradients and the batch's, as a share of the longest."""


def example_cost(
    workload: Workload, decoder: LaneDecoder, start: AdapterState, *, memory_bytes: int
) -> ExampleCost:
    """Compare, client by client, both kinds of gradient of its groups; an example is a group.

    Reference log-probabilities are there before.
    """
    reference = ReferenceColumn(lane_passes.reference_scorer(decoder, memory_bytes))
    values = decoder.layout.to_vector(start).to(decoder.device)

    def by_example(groups: Sequence[Group]) -> Tensor:
        total = torch.zeros_like(values)
        for part in example_gradients(
            decoder, values, groups, APO_ZERO, reference, memory_bytes=memory_bytes
        ):
            total += part.gradients.sum(0)
        return total / len(groups)

    together = partial(_batch_gradient, decoder, values, APO_ZERO, reference)
    single, plain = Clock(decoder.device), Clock(decoder.device)
    difference = 0.0
    for client, own in workload.groups.items():
        groups = reference.place(client, own)
        together(groups)  # after it the reference log-probabilities are there
        mean = single.time(partial(by_example, groups))
        of_batch = plain.time(partial(together, groups))
        gap = (mean - of_batch).abs().max() / of_batch.abs().max()
        difference = max(difference, gap.item())
    ratios = [one / other for one, other in zip(single.seconds, plain.seconds, strict=True)]
    return ExampleCost(
        statistics.median(single.seconds),
        statistics.median(plain.seconds),
        statistics.median(ratios),
        difference,
    )


def _batch_gradient(
    decoder: LaneDecoder,
    values: Tensor,
    objective: Objective,
    reference: ReferenceColumn,
    groups: Sequence[Group],
) -> Tensor:
    gradients = torch.zeros_like(values)[None]
    factors = StackedFactors(values[None], gradients, decoder.scale, decoder.dtype)
    lane = branches_of(groups, objective)
    scored = lane_passes.score_lanes(decoder, [lane], factors)
    _, gradient = lane_losses([lane], scored, objective, reference)
    lane_passes.differentiate(decoder, scored, gradient)
    return gradients[0]
