"""The loss of each lane of a pass, and the gradient of their sum."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pkgllm.objectives.objective import Objective
from pkgllm.training.batches import scored_groups
from pkgllm.training.lane_passes import ScoredPass
from pkgllm.training.log_probabilities import Branch
from pkgllm.training.reference import ReferenceColumn


def lane_losses(
    lanes: Sequence[Sequence[Branch]],
    scored: ScoredPass,
    objective: Objective,
    reference: ReferenceColumn,
    kl_baseline: float | None = None,
) -> tuple[list[float | Exception], Tensor]:
    """Return each lane's loss, and the gradient of their sum by all log-probabilities.

    Lanes share nothing, so each lane's part is its own gradient. A lane whose loss is not finite,
    or cannot be computed, adds 0.

    Returns:
        For each lane its loss or the exception raised in its place; and the gradient, shape
        ``(completions,)``.
    """
    log_probs = scored.log_probs.detach().requires_grad_()
    reference_log_probs = None
    if objective.needs_reference:
        in_order = [branch for branches in lanes for branch in branches]
        reference_log_probs = reference.log_probabilities(in_order).to(log_probs.device)
    failures: dict[int, Exception] = {}
    losses = []
    for number, branches in enumerate(lanes):
        own = slice(scored.bounds[number], scored.bounds[number + 1])
        try:
            of_lane = None if reference_log_probs is None else reference_log_probs[own]
            groups = scored_groups(branches, log_probs[own], of_lane)
            losses.append(objective.loss(groups, kl_baseline))
        except Exception as error:
            failures[number] = error
            losses.append(0 * log_probs[own].sum())
    stacked = torch.stack(losses)
    (gradient,) = torch.autograd.grad(stacked.sum(), log_probs)
    values = stacked.tolist()
    for number, value in enumerate(values):
        if not math.isfinite(value):
            gradient[scored.bounds[number] : scored.bounds[number + 1]] = 0
    return [failures.get(number, value) for number, value in enumerate(values)], gradient
