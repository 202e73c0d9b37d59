"""The lane engine: a cohort of clients trains in one pass over the frozen base model.

Every client is a lane with adapter values, gradients and optimiser state of its own, so what it
trains to is what it would train to alone.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from pkgllm.lm.adapter import AdapterState
from pkgllm.lm.lanes.decoder import LaneDecoder
from pkgllm.lm.lanes.lora_factors import StackedFactors
from pkgllm.objectives.objective import Objective
from pkgllm.prompts.groups import Group
from pkgllm.training.batches import branches_of, draw_batches
from pkgllm.training.lane_losses import lane_losses
from pkgllm.training.lane_memory import PassCost, share_out
from pkgllm.training.lane_optimizers import clip_gradients, make_lane_optimizer
from pkgllm.training.lane_passes import (
    branch_tokens,
    differentiate,
    is_batched,
    score_lanes,
)
from pkgllm.training.local import NO_CORRECTIONS, LocalSteps, TrainedClient, loss_not_finite
from pkgllm.training.local_terms import LaneTerms
from pkgllm.training.log_probabilities import Branch
from pkgllm.training.reference import ReferenceColumn


@dataclass(slots=True)
class Lane:
    """One adapter, trained through its local steps."""

    name: str
    """Of its client, for messages."""
    values: Tensor
    """The adapter as one vector: the received one before training, the trained one after."""
    batches: Sequence[Sequence[Branch]]
    """One for each step."""
    learning_rate: float
    max_grad_norm: float
    proximal_mu: float = 0.0
    """Weight of FedProx's pull towards the received adapter."""
    correction: Tensor | None = None
    """SCAFFOLD's, added to each gradient; as ``values``."""
    losses: list[float] = field(default_factory=list)
    """Loss before each step."""
    failure: Exception | None = None
    """Why the lane failed."""

    def note(self, loss: float | Exception, round_num: int) -> None:
        """Record a step's loss, or the exception raised in its place."""
        if isinstance(loss, Exception):
            self.failure = self.failure or loss
            return
        self.losses.append(loss)
        if not math.isfinite(loss):
            self.failure = self.failure or loss_not_finite(self.name, round_num, loss)

    @property
    def most_tokens(self) -> int:
        """Tokens of its largest step."""
        return max(sum(map(branch_tokens, batch)) for batch in self.batches)

    @property
    def longest_group(self) -> int:
        """Tokens of its longest prompt with all branches."""
        return max(branch_tokens(branch) for batch in self.batches for branch in batch)


@dataclass(slots=True)
class TokenCount:
    """Tokens that went through the model in training, and padding tokens among lanes."""

    tokens: int = 0
    padding: int = 0


class LaneTrainer:
    """Trains many clients in one pass, each from the adapter it received.

    The policy of the ``decoder`` says which factors are trained, and is not changed. A pass takes
    at most ``memory_bytes`` beside the model's parameters; clients that do not fit in together
    train one after the other.

    Equal to :class:`~pkgllm.training.sequential.SequentialTrainer` up to rounding.
    """

    def __init__(
        self,
        decoder: LaneDecoder,
        groups: Mapping[str, Sequence[Group]],
        objective: Objective,
        reference: ReferenceColumn,
        *,
        steps: LocalSteps,
        seed: int,
        memory_bytes: int,
    ) -> None:
        self._decoder = decoder
        self._groups = groups
        self._objective = objective
        self._reference = reference
        self._steps = steps
        self._seed = seed
        self._memory_bytes = memory_bytes
        self.count = TokenCount()

    def __call__(
        self,
        adapters: Mapping[str, AdapterState],
        *,
        round_num: int,
        learning_rate: float,
        proximal_mu: float = 0.0,
        kl_baseline: float | None = None,
        corrections: Mapping[str, AdapterState] = NO_CORRECTIONS,
    ) -> dict[str, TrainedClient | Exception]:
        """See :class:`~pkgllm.training.local.CohortTrainer`."""
        layout = self._decoder.layout
        vectors: dict[int, Tensor] = {}
        lanes: list[Lane] = []
        num_groups: dict[str, int] = {}
        results: dict[str, TrainedClient | Exception] = {}
        for client, adapter in adapters.items():
            try:
                # An adapter that several clients start from is converted once.
                if id(adapter) not in vectors:
                    vectors[id(adapter)] = layout.to_vector(adapter)
                groups = self._reference.place(client, self._groups[client])
                drawn = draw_batches(
                    groups, steps=self._steps, seed=self._seed, client=client, round_num=round_num
                )
                batches = [branches_of(batch, self._objective) for batch in drawn]
                correction = (
                    layout.to_vector(corrections[client]) if client in corrections else None
                )
            except Exception as error:
                results[client] = error
                continue
            num_groups[client] = len(groups)
            lanes.append(
                Lane(
                    client,
                    vectors[id(adapter)],
                    batches,
                    learning_rate,
                    self._steps.max_grad_norm,
                    proximal_mu,
                    correction,
                )
            )
        self.train(lanes, round_num=round_num, kl_baseline=kl_baseline)
        for lane in lanes:
            results[lane.name] = lane.failure or TrainedClient(
                layout.to_state(lane.values),
                num_groups[lane.name],
                sum(lane.losses) / len(lane.losses),
            )
        return {client: results[client] for client in adapters}

    def train(
        self, lanes: Sequence[Lane], *, round_num: int, kl_baseline: float | None = None
    ) -> None:
        """Take each lane through its steps; as many together as fit into the memory.

        A lane whose loss is not finite, or cannot be computed, fails alone.

        Args:
            lanes: Trained in place.
            round_num: For messages.
            kl_baseline: Of all lanes, where the objective takes it from the server; nats.

        Raises:
            FederationError: If the objective takes a baseline and none was sent, or the other way.
            ModelError: If a single step does not fit into the memory.
        """
        self._objective.check_baseline(kl_baseline)
        if not lanes:
            return
        tokens = [lane.most_tokens for lane in lanes]
        longest = max(lane.longest_group for lane in lanes)
        cost_of = partial(
            PassCost.of,
            self._decoder,
            longest_group=longest,
            num_terms=any(lane.proximal_mu for lane in lanes)
            + any(lane.correction is not None for lane in lanes),
        )
        cost = cost_of(checkpoint=False)
        checkpoint = cost.total(rows=max(tokens), lanes=1) > self._memory_bytes
        if checkpoint:
            cost = cost_of(checkpoint=True)
        for part in share_out(tokens, cost, self._memory_bytes, equal=is_batched(self._decoder)):
            together = [lanes[index] for index in part]
            # Lanes with more steps come first, so that a prefix of them is active in each step.
            together.sort(key=lambda lane: -len(lane.batches))
            self._train_together(together, round_num, kl_baseline, checkpoint=checkpoint)

    def _train_together(
        self, lanes: list[Lane], round_num: int, kl_baseline: float | None, *, checkpoint: bool
    ) -> None:
        decoder = self._decoder
        values = torch.stack([lane.values for lane in lanes]).to(decoder.device)
        gradients = torch.zeros_like(values)
        rates = values.new_tensor([[lane.learning_rate] for lane in lanes])
        max_norms = values.new_tensor([[lane.max_grad_norm] for lane in lanes])
        trained = slice(0 if decoder.trains_lora_a else decoder.layout.num_lora_a, None)
        terms = LaneTerms.of(
            values, [lane.proximal_mu for lane in lanes], [lane.correction for lane in lanes]
        )
        optimizer = make_lane_optimizer(
            self._steps.optimizer, weight_decay=self._steps.weight_decay
        )
        for step in range(len(lanes[0].batches)):
            active = [lane for lane in lanes if step < len(lane.batches)]
            now = slice(len(active))
            batches = [lane.batches[step] for lane in active]
            if self._objective.needs_reference:
                # Before the pass, so that the two never need memory at the same time.
                self._reference.log_probabilities([b for batch in batches for b in batch])
            factors = StackedFactors(values[now], gradients[now], decoder.scale, decoder.dtype)
            scored = score_lanes(decoder, batches, factors, checkpoint=checkpoint)
            self.count.tokens += scored.num_tokens
            self.count.padding += scored.num_padding
            losses, gradient = lane_losses(
                batches, scored, self._objective, self._reference, kl_baseline
            )
            for lane, loss in zip(active, losses, strict=True):
                lane.note(loss, round_num)
            differentiate(decoder, scored, gradient)
            clip_gradients(gradients[now, trained], max_norms[now])
            terms.add_to(gradients[now, trained], values[now, trained], trained.start)
            optimizer.step(values[now, trained], gradients[now, trained], rates[now])
        for lane, trained_values in zip(lanes, values.cpu(), strict=True):
            lane.values = trained_values
