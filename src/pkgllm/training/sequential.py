"""Local training, one client after the other: the executable reference of every faster engine."""

import math
from collections.abc import Mapping, Sequence

import torch
from peft import PeftModel
from torch import Tensor

from pkgllm.lm.adapter import (
    AdapterState,
    adapter_state,
    load_adapter_state,
    trained_parameters,
    without_adapter,
)
from pkgllm.objectives.objective import Objective
from pkgllm.objectives.scored_groups import ScoredGroups
from pkgllm.prompts.groups import Group
from pkgllm.training.batches import branches_of, draw_batches, scored_groups
from pkgllm.training.client_by_client import ClientByClient
from pkgllm.training.local import LocalSteps, TrainedClient, loss_not_finite
from pkgllm.training.local_terms import add_terms
from pkgllm.training.log_probabilities import (
    Branch,
    completion_log_probabilities,
    pack_branches,
    score_alone,
)
from pkgllm.training.reference import ReferenceColumn, ReferenceScore


class SequentialTrainer(ClientByClient):
    """Trains with torch's own optimisers; ``reference`` has the base's log-probabilities."""

    def __init__(
        self,
        policy: PeftModel,
        groups: Mapping[str, Sequence[Group]],
        objective: Objective,
        reference: ReferenceColumn,
        *,
        steps: LocalSteps,
        seed: int,
    ) -> None:
        super().__init__(policy, groups, objective, steps=steps, seed=seed)
        self._reference = reference

    def train_client(
        self,
        client: str,
        adapter: AdapterState,
        round_num: int,
        learning_rate: float,
        *,
        proximal_mu: float,
        kl_baseline: float | None,
        correction: AdapterState | None,
    ) -> TrainedClient:
        """Take a client's local steps."""
        load_adapter_state(self._policy, adapter)
        trained = trained_parameters(self._policy)
        parameters = list(trained.values())
        optimizer = self._optimizer(parameters, learning_rate)
        groups = self._reference.place(client, self._groups[client])
        losses = []
        for batch in draw_batches(
            groups, steps=self._steps, seed=self._seed, client=client, round_num=round_num
        ):
            scored = score(self._policy, batch, self._objective, self._reference)
            loss = self._objective.loss(scored, kl_baseline)
            if not math.isfinite(loss.item()):
                raise loss_not_finite(client, round_num, loss.item())
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(parameters, self._steps.max_grad_norm)
            add_terms(trained, adapter, proximal_mu=proximal_mu, correction=correction)
            optimizer.step()
            losses.append(loss.item())
        return TrainedClient(adapter_state(self._policy), len(groups), sum(losses) / len(losses))

    def _optimizer(
        self, parameters: Sequence[Tensor], learning_rate: float
    ) -> torch.optim.Optimizer:
        if self._steps.optimizer == "sgd":
            return torch.optim.SGD(
                parameters, lr=learning_rate, weight_decay=self._steps.weight_decay
            )
        return torch.optim.AdamW(
            parameters, lr=learning_rate, weight_decay=self._steps.weight_decay
        )


def reference_scorer(policy: PeftModel) -> ReferenceScore:
    """Return what computes the reference's log-probabilities: the policy without its adapter."""

    def of_base_model(branches: Sequence[Branch]) -> Tensor:
        with without_adapter(policy):
            return score_alone(policy, branches)

    return of_base_model


def score(
    policy: PeftModel, batch: Sequence[Group], objective: Objective, reference: ReferenceColumn
) -> ScoredGroups:
    """Return the log-probabilities that an objective needs of a batch of groups."""
    branches = branches_of(batch, objective)
    scored = completion_log_probabilities(policy, pack_branches(branches, policy.device))
    cached = (
        reference.log_probabilities(branches).to(policy.device)
        if objective.needs_reference
        else None
    )
    return scored_groups(branches, scored, cached)
