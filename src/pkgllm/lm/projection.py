"""The fastest available matrix products, and linear maps with their adapter merged.

Source of the adapter's term: Hu et al. 2021, arXiv:2106.09685, eq. 3.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
import torch.nn.functional as F
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

# Torch and oneDNN each cache a kernel for every number of rows, up to 1,024 of them, which takes
# memory in long runs. They read these limits once, at the first product.
os.environ.setdefault("LRU_CACHE_CAPACITY", "64")
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "256")

Activation = Literal["none", "swish"]
Pointwise = Callable[[Tensor, Tensor, Tensor | None, str, list[object], str], Tensor]
PointwiseBinary = Callable[[Tensor, Tensor, Tensor, Tensor | None, str], Tensor]


def _onednn() -> tuple[Pointwise, PointwiseBinary] | None:
    # In float32 oneDNN uses the widest vector instructions of any CPU; torch's default library uses
    # half of that width on AMD and is half as fast there. torch.compile emits these two operators.
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return None
    operator = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    return None if operator is None else (operator, operator.binary)


_ONEDNN = _onednn()


def linear(
    rows: Tensor, weight: Tensor, bias: Tensor | None = None, activation: Activation = "none"
) -> Tensor:
    """Return ``rows @ weight.T + bias``, and its activation.

    Args:
        rows: Shape ``(rows, in)``.
        weight: Shape ``(out, in)``.
        bias: Shape ``(out,)``.
        activation: Applied last.
    """
    if _ONEDNN is not None and _fits_onednn(rows, weight):
        return _ONEDNN[0](rows, weight, bias, activation, [], "")
    mapped = F.linear(rows, weight, bias)
    return F.silu(mapped) if activation == "swish" else mapped


def linear_plus(rows: Tensor, weight: Tensor, other: Tensor) -> Tensor:
    """Return ``rows @ weight.T + other``; ``other`` has the result's shape ``(rows, out)``."""
    if _ONEDNN is not None and _fits_onednn(rows, weight):
        return _ONEDNN[1](rows, other, weight, None, "add")
    return torch.addmm(other, rows, weight.t())


def outer(left: Tensor, right: Tensor) -> Tensor:
    """Return ``left.T @ right``, the sum over rows of their outer products.

    Args:
        left: Shape ``(rows, m)``.
        right: Shape ``(rows, n)``.

    Returns:
        Shape ``(m, n)``.
    """
    # oneDNN reads both across their rows, nearly twice as fast with the narrow one first.
    if left.shape[1] <= right.shape[1]:
        return linear(left.t(), right.t())
    return linear(right.t(), left.t()).t()


def _fits_onednn(rows: Tensor, weight: Tensor) -> bool:
    # It does not support sums of no terms, which outer products of no rows are.
    return rows.device.type == "cpu" and weight.dtype == torch.float32 and rows.shape[-1] > 0


@dataclass(frozen=True, slots=True)
class Projection:
    r"""Map rows as a linear layer does, with the adapter that it carries.

    .. math:: y = x W^T + b + s \, (x A^T) B^T

    In a float32 layer the adapter is merged into the matrix, which leaves one product. In bfloat16
    the sum would round most of the adapter away, so it is applied separately, in float32.
    """

    weight: Tensor
    """Shape ``(out, in)``."""
    bias: Tensor | None
    adapter: tuple[Tensor, Tensor, float] | None
    """``A`` of shape ``(lora_rank, in)``, ``B`` of shape ``(out, lora_rank)``, and the scale."""

    @classmethod
    def of(cls, layer: nn.Module, *, with_adapter: bool) -> "Projection":
        """Return the map of a linear layer or of one that PEFT has wrapped.

        Args:
            layer: Its parameters are used as they are, or copied where an adapter is merged.
            with_adapter: Whether its active LoRA adapter counts.
        """
        if not isinstance(layer, LoraLayer):
            return cls(cast(Tensor, layer.weight), cast("Tensor | None", layer.bias), None)
        base = layer.get_base_layer()
        plain = cls.of(base, with_adapter=False)
        (name,) = layer.active_adapters
        if not with_adapter or name not in layer.lora_A:
            return plain
        lora_a = cast(Tensor, layer.lora_A[name].weight)
        lora_b = cast(Tensor, layer.lora_B[name].weight)
        scale = float(layer.scaling[name])
        if plain.weight.dtype != torch.float32:
            return cls(plain.weight, plain.bias, (lora_a, lora_b, scale))
        merged = torch.addmm(plain.weight, lora_b.float(), lora_a.float(), alpha=scale)
        return cls(merged, plain.bias, None)

    @classmethod
    def joined(cls, parts: Sequence["Projection"]) -> "Projection":
        """Return one map with the outputs of several maps of the same rows, side by side.

        Their parameters are copied.

        Raises:
            ValueError: If only some of them have a bias.
        """
        biases = [part.bias for part in parts if part.bias is not None]
        if len(biases) not in (0, len(parts)):
            raise ValueError(f"all parts or none must have a bias, got {len(biases)} that have one")
        return cls(
            torch.cat([part.weight for part in parts]),
            torch.cat(biases) if biases else None,
            _joined_adapters(parts) if any(part.adapter for part in parts) else None,
        )

    def __call__(self, rows: Tensor, activation: Activation = "none") -> Tensor:
        """Map rows of shape ``(rows, in)`` to ``(rows, out)``, then apply the activation."""
        if self.adapter is None:
            return linear(rows, self.weight, self.bias, activation)
        mapped = self._map(rows)
        return F.silu(mapped) if activation == "swish" else mapped

    def times(self, rows: Tensor, other: Tensor) -> Tensor:
        """Map rows and multiply the result by another of its shape."""
        if _ONEDNN is not None and _fits_onednn(rows, self.weight):
            return _ONEDNN[1](rows, other, self.weight, self.bias, "mul")
        return self._map(rows) * other

    def plus(self, rows: Tensor, other: Tensor) -> Tensor:
        """Map rows and add another tensor of the result's shape."""
        if _ONEDNN is not None and _fits_onednn(rows, self.weight):
            return _ONEDNN[1](rows, other, self.weight, self.bias, "add")
        return self._map(rows) + other

    def _map(self, rows: Tensor) -> Tensor:
        mapped = F.linear(rows, self.weight, self.bias)
        if self.adapter is None:
            return mapped
        lora_a, lora_b, scale = self.adapter
        added = F.linear(F.linear(rows.to(lora_a.dtype), lora_a), lora_b) * scale
        return mapped + added.to(mapped.dtype)


def _joined_adapters(parts: Sequence[Projection]) -> tuple[Tensor, Tensor, float]:
    all_a, all_b = [], []
    for part in parts:
        rows, columns = part.weight.shape
        rank_0 = part.weight.new_empty(0, columns), part.weight.new_empty(rows, 0), 1.0
        lora_a, lora_b, scale = part.adapter or rank_0
        all_a.append(lora_a.float())
        all_b.append(lora_b.float() * scale)
    return torch.cat(all_a), torch.block_diag(*all_b), 1.0  # type: ignore[no-untyped-call]
