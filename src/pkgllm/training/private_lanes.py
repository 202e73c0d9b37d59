"""Privacy unit ``example``: every step of a client is noised before anything of it is sent.

Local training is DP-SGD (Abadi et al. 2016, arXiv:1607.00133, algorithm 1): each step draws every
group of the client by itself with the same probability, clips the gradient of each drawn group,
adds noise to the sum and divides by the expected batch size. All that follows, FedProx's and
SCAFFOLD's terms, the optimiser and the server, works on noisy values.

Others see whether a client failed. A group that cannot be differentiated adds 0 instead of failing,
so that a failure does not depend on one group. The exception is a group that does not fit into the
memory, which depends on ``prompt.max_tokens``, a public setting.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pkgllm.errors import PkgllmError
from pkgllm.lm.adapter import AdapterState
from pkgllm.lm.lanes.decoder import LaneDecoder
from pkgllm.objectives.objective import Objective
from pkgllm.privacy.clipping import GaussianSettings
from pkgllm.privacy.example_level import Charge, private_step_gradient
from pkgllm.privacy.mechanisms import Mechanism
from pkgllm.privacy.noise import NoiseSource, poisson_sample
from pkgllm.prompts.groups import Group
from pkgllm.training.example_gradients import ExampleGradients, example_gradients
from pkgllm.training.lane_optimizers import make_lane_optimizer
from pkgllm.training.local import NO_CORRECTIONS, LocalSteps, TrainedClient
from pkgllm.training.local_terms import LaneTerms
from pkgllm.training.reference import ReferenceColumn


@dataclass(slots=True)
class _Losses:
    """Of the examples that were drawn. Private."""

    values: list[float] = field(default_factory=list)

    def gradients(self, parts: Iterator[ExampleGradients], first: int) -> Iterator[Tensor]:
        """Yield the trained part of each example's gradient, and keep the losses."""
        for part in parts:
            self.values += [loss for loss in part.losses if not isinstance(loss, Exception)]
            yield part.gradients[:, first:]

    @property
    def mean(self) -> float:
        """Over all examples with a finite loss; 0 where none was drawn."""
        finite = torch.tensor(self.values, dtype=torch.float64)
        finite = finite[finite.isfinite()]
        return float(finite.mean()) if len(finite) else 0.0


class PrivateLaneTrainer:
    """Trains clients one after the other; the adapters that it returns are noised, hence public.

    Without noise, with every group drawn and nothing clipped, it equals
    :class:`~pkgllm.training.cohort.LaneTrainer` with all of a client's groups in each step.

    Args:
        decoder: Of a policy; its own adapter says which factors are trained, and is not changed.
        groups: Each client's groups, at least one. How many there are counts as known.
        objective: What is minimised, of each group by itself.
        reference: Log-probabilities of the frozen base.
        steps: How a client trains; its ``groups_per_step`` and ``max_grad_norm`` are not used.
        settings: Clip norm, noise and expected batch size of a step.
        noise: Of sampling and of Gaussian noise.
        charge: Called once in each call, when all clients are done and before their adapters are
            returned, without the clients that failed. Where it raises, nothing is released.
        memory_bytes: What a pass may take beside the model's parameters.

    Raises:
        ValueError: If the objective couples the examples of a batch: a group's gradient would then
            depend on two examples.
    """

    def __init__(
        self,
        decoder: LaneDecoder,
        groups: Mapping[str, Sequence[Group]],
        objective: Objective,
        reference: ReferenceColumn,
        *,
        steps: LocalSteps,
        settings: GaussianSettings,
        noise: NoiseSource,
        charge: Charge,
        memory_bytes: int,
    ) -> None:
        if objective.couples_examples:
            raise ValueError(
                "the loss of a group must not depend on the others of its batch, got objective "
                f"{objective.name}, which couples them"
            )
        self._decoder = decoder
        self._groups = groups
        self._objective = objective
        self._reference = reference
        self._steps = steps
        self._settings = settings
        self._noise = noise
        self._charge = charge
        self._memory_bytes = memory_bytes

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
        self._objective.check_baseline(kl_baseline)
        results: dict[str, TrainedClient | Exception] = {}
        released: dict[str, Mechanism] = {}
        for client, adapter in adapters.items():
            try:
                groups = self._reference.place(client, self._groups[client])
                mechanism = self._mechanism(len(groups))
                results[client] = self._train(
                    client,
                    adapter,
                    groups,
                    mechanism.sampling_probability,
                    round_num=round_num,
                    learning_rate=learning_rate,
                    proximal_mu=proximal_mu,
                    kl_baseline=kl_baseline,
                    correction=corrections.get(client),
                )
            except Exception as error:
                results[client] = error
            else:
                released[client] = mechanism
        if released:
            try:
                self._charge(round_num, released)
            except PkgllmError as error:
                results |= dict.fromkeys(released, error)
        return results

    def _mechanism(self, num_groups: int) -> Mechanism:
        return Mechanism(
            self._settings.noise_multiplier,
            min(1.0, self._settings.expected_units / num_groups),
            self._steps.local_steps,
        )

    def _train(
        self,
        client: str,
        adapter: AdapterState,
        groups: Sequence[Group],
        sampling_probability: float,
        *,
        round_num: int,
        learning_rate: float,
        proximal_mu: float,
        kl_baseline: float | None,
        correction: AdapterState | None,
    ) -> TrainedClient:
        decoder, layout = self._decoder, self._decoder.layout
        first = 0 if decoder.trains_lora_a else layout.num_lora_a
        values = layout.to_vector(adapter).to(decoder.device, copy=True)[None]
        trained = values[:, first:]
        rate = values.new_tensor([[learning_rate]])
        terms = LaneTerms.of(
            values, [proximal_mu], [None if correction is None else layout.to_vector(correction)]
        )
        optimizer = make_lane_optimizer(
            self._steps.optimizer, weight_decay=self._steps.weight_decay
        )
        losses = _Losses()
        for step in range(self._steps.local_steps):
            drawn = poisson_sample(
                len(groups),
                sampling_probability,
                self._noise.generator(client, round_num, step, "sampling"),
            )
            parts = example_gradients(
                decoder,
                values[0],
                [groups[index] for index in drawn],
                self._objective,
                self._reference,
                memory_bytes=self._memory_bytes,
                kl_baseline=kl_baseline,
            )
            gradient = private_step_gradient(
                losses.gradients(parts, first),
                self._settings,
                self._noise.generator(client, round_num, step, "noise"),
                num_values=trained.shape[1],
                device=decoder.device,
            )[None]
            terms.add_to(gradient, trained, first)
            optimizer.step(trained, gradient, rate)
        return TrainedClient(layout.to_state(values[0].cpu()), len(groups), losses.mean)
