"""Privacy unit ``example``: the private gradient of one step (DP-SGD).

Source: Abadi et al. 2016, arXiv:1607.00133, algorithm 1, with the expected in place of the drawn
batch size. Terms of FedProx and SCAFFOLD belong after it; they know nothing private.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pkgllm.privacy.clipping import GaussianSettings, clip_factors
from pkgllm.privacy.mechanisms import Mechanism
from pkgllm.privacy.noise import NoiseSource, add_gaussian

Charge = Callable[[int, Mapping[str, Mechanism]], None]
"""Writes down what a round is about to release, by client; raises where it cannot."""


@dataclass(frozen=True, slots=True)
class ExampleRelease:
    """How the noise of private gradients is drawn and paid for."""

    noise_multiplier: float
    """As configured, or computed from the target epsilon."""
    noise: NoiseSource
    charge: Charge
    """Called with what is about to be released, before anybody has it."""


def private_step_gradient(
    parts: Iterable[Tensor],
    settings: GaussianSettings,
    noise: np.random.Generator,
    *,
    num_values: int,
    device: torch.device | str = "cpu",
) -> Tensor:
    r"""Return the noisy gradient of a step, which may leave the client.

    .. math:: \frac1L\Bigl(\sum_i g_i\min(1, C/\lVert g_i\rVert)+\mathcal N(0, z^2C^2 I)\Bigr)

    Each gradient must depend on its own example alone. An objective that couples the examples of a
    batch, as stock KTO does by its baseline, is outside of what clipping bounds.

    Args:
        parts: Gradients of some examples each, which may be overwritten when the next part is
            asked for. Shape ``(examples, num_values)``, float32. Without any, noise alone comes
            back.
        settings: Its ``expected_units`` is the expected batch size :math:`L`.
        noise: The stream of this client, round and step.
        num_values: Values that are trained; frozen ones stand in no part.
        device: Where the parts are and the result will be.

    Returns:
        Shape ``(num_values,)``, float32.

    Raises:
        ValueError: If a part has another shape.

    Example:
        >>> from pkgllm.privacy.noise import fixed
        >>> settings = GaussianSettings(clip_norm=1.0, noise_multiplier=0.0, expected_units=4.0)
        >>> batch = torch.tensor([[3.0, 4.0], [0.0, 0.5]])
        >>> gradient = private_step_gradient([batch], settings, fixed(0).generator(), num_values=2)
        >>> [round(value, 4) for value in gradient.tolist()]
        [0.15, 0.325]
    """
    total = torch.zeros(num_values, dtype=torch.float64, device=device)
    for part in parts:
        if part.dim() != 2 or part.shape[1] != num_values:
            raise ValueError(
                f"gradients must have shape (examples, {num_values}), got {tuple(part.shape)}"
            )
        norms = torch.linalg.vector_norm(part, dim=1, dtype=torch.float64)
        factors = clip_factors(norms, settings.clip_norm)
        if not bool(norms.isfinite().all()):
            # 0 times NaN is NaN.
            part = part.where(norms.isfinite()[:, None], 0)
        total += factors.to(part.dtype) @ part
    add_gaussian(total, settings.noise_std, noise)
    return (total / settings.expected_units).float()
