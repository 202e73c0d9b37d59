"""Optimisers over stacked adapters: one row is one lane, and all steps are elementwise."""

from typing import Literal, Protocol

import torch
from torch import Tensor


class LaneOptimizer(Protocol):
    """Moves adapters; its state belongs to the lanes that it was made for."""

    def step(self, values: Tensor, gradients: Tensor, learning_rates: Tensor) -> None:
        """Move the first lanes by one step.

        Args:
            values: Changed in place. Shape ``(lanes, values)``; fewer lanes than in the last call
                where the last ones have no more steps.
            gradients: As ``values``.
            learning_rates: Shape ``(lanes, 1)``.
        """
        ...


class LaneSgd:
    """Stochastic gradient descent, as ``torch.optim.SGD`` without momentum.

    Args:
        weight_decay: Times the value, is added to its gradient.
    """

    def __init__(self, *, weight_decay: float) -> None:
        self._weight_decay = weight_decay

    def step(self, values: Tensor, gradients: Tensor, learning_rates: Tensor) -> None:
        """See :class:`LaneOptimizer`."""
        if self._weight_decay:
            gradients = gradients.add(values, alpha=self._weight_decay)
        values.addcmul_(gradients, learning_rates, value=-1)


class LaneAdamW:
    r"""Adam with decoupled weight decay, as ``torch.optim.AdamW``.

    .. math::
        m &\leftarrow \beta_1 m + (1 - \beta_1) g, \quad
        v \leftarrow \beta_2 v + (1 - \beta_2) g^2 \\
        \theta &\leftarrow (1 - \eta \lambda) \theta
            - \eta \frac{m / (1 - \beta_1^t)}{\sqrt{v / (1 - \beta_2^t)} + \epsilon}

    Source: Loshchilov and Hutter 2019, arXiv:1711.05101, algorithm 2.

    Args:
        weight_decay: :math:`\lambda`.
        betas: :math:`\beta_1, \beta_2`.
        epsilon: :math:`\epsilon`.
    """

    def __init__(
        self,
        *,
        weight_decay: float,
        betas: tuple[float, float] = (0.9, 0.999),
        epsilon: float = 1e-8,
    ) -> None:
        self._weight_decay = weight_decay
        self._betas = betas
        self._epsilon = epsilon
        self._moments: tuple[Tensor, Tensor] | None = None
        self._num_steps = 0

    def step(self, values: Tensor, gradients: Tensor, learning_rates: Tensor) -> None:
        """See :class:`LaneOptimizer`."""
        if self._moments is None:
            self._moments = torch.zeros_like(values), torch.zeros_like(values)
        first, second = (moment[: len(values)] for moment in self._moments)
        beta1, beta2 = self._betas
        self._num_steps += 1
        if self._weight_decay:
            values.mul_(1 - learning_rates * self._weight_decay)
        first.lerp_(gradients, 1 - beta1)
        second.mul_(beta2).addcmul_(gradients, gradients, value=1 - beta2)
        scale = (1 - beta2**self._num_steps) ** 0.5
        step = first / second.sqrt().div_(scale).add_(self._epsilon)
        values.addcmul_(step, learning_rates, value=-1 / (1 - beta1**self._num_steps))


def make_lane_optimizer(name: Literal["adamw", "sgd"], *, weight_decay: float) -> LaneOptimizer:
    """Return a fresh optimiser by its name."""
    match name:
        case "sgd":
            return LaneSgd(weight_decay=weight_decay)
        case "adamw":
            return LaneAdamW(weight_decay=weight_decay)


def clip_gradients(gradients: Tensor, max_norms: Tensor) -> Tensor:
    """Scale each lane's gradient down to a largest length, in place; return the lengths before.

    As ``torch.nn.utils.clip_grad_norm_`` does for one model, with its 1e-6.

    Args:
        gradients: Shape ``(lanes, values)``.
        max_norms: Shape ``(lanes, 1)``.

    Returns:
        Euclidean lengths before, shape ``(lanes, 1)``.
    """
    norms: Tensor = torch.linalg.vector_norm(gradients, dim=1, keepdim=True)
    gradients.mul_((max_norms / (norms + 1e-6)).clamp_(max=1))
    return norms
