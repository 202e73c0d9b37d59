"""One layer of a decoder over lanes, forwards and backwards.

The base model is frozen, so only the rows and the LoRA factors have gradients; they are written out
by hand, and little of the forward pass is kept for them. ``d_x`` is the gradient of ``x``.

Shapes: ``R`` rows of a pass, ``S`` rows behind the selection (``S = R`` in all layers but the
last), ``H`` query heads, ``K`` key and value heads, ``D`` head size, ``E`` hidden size, ``M`` MLP
size, ``r`` the sum of the LoRA ranks of the layers that map the same rows.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pkgllm.lm.lanes.group_attention import GroupAttention
from pkgllm.lm.lanes.linear import LaneLinear
from pkgllm.lm.lanes.lora_factors import StackedFactors
from pkgllm.lm.lanes.stack import Lanes
from pkgllm.lm.rms_norm import RmsNorm
from pkgllm.lm.rotary import Rotation


@dataclass(frozen=True, slots=True)
class Pass:
    """What all layers of a pass share."""

    lanes: Lanes
    factors: StackedFactors | None
    attention: GroupAttention
    q_rotation: Rotation
    k_rotation: Rotation
    trains_lora_a: bool
    """Whether ``A`` is trained, or only ``B``."""


@dataclass(frozen=True, slots=True)
class Selection:
    """The rows that go on after the attention of the last layer: those that predict something."""

    index: Tensor
    """Shape ``(S,)``, int64. Padding may repeat a row."""
    lanes: Lanes


@dataclass(frozen=True, slots=True)
class LayerTape:
    """What the backward pass of a layer needs. Names as in :meth:`LaneLayer.forward`."""

    x: Tensor
    x_inverse: Tensor
    q: Tensor
    k: Tensor
    q_inverse: Tensor | None
    k_inverse: Tensor | None
    qkv_low: Tensor | None
    attention: Any
    y: Tensor
    o_low: Tensor | None
    residual: Tensor
    residual_inverse: Tensor
    gate: Tensor
    up: Tensor
    gate_up_low: Tensor | None
    down_low: Tensor | None


@dataclass(frozen=True, slots=True)
class LaneLayer:
    """The parts of a layer; linear layers that map the same rows stand together."""

    attention_norm: RmsNorm
    qkv: LaneLinear
    q_norm: RmsNorm | None
    k_norm: RmsNorm | None
    o: LaneLinear
    mlp_norm: RmsNorm
    gate_up: LaneLinear
    down: LaneLinear
    head_dim: int

    def forward(
        self, x: Tensor, shared: Pass, selection: Selection | None
    ) -> tuple[Tensor, LayerTape]:
        """Return the layer's output of shape ``(S, E)``, and what :meth:`backward` needs.

        Args:
            x: Shape ``(R, E)``.
            shared: What all layers share.
            selection: Rows of the output; None for all.
        """
        lanes, factors = shared.lanes, shared.factors
        normed, x_inverse = self.attention_norm.forward(x)  # (R, E), (R, 1)
        (q, k, v), qkv_low = self.qkv.forward(normed, lanes, factors)
        q, k, v = (self._by_head(flat) for flat in (q, k, v))  # (R, H, D), (R, K, D) twice
        rotated_q, q_inverse = apply_rotary(q, self.q_norm, shared.q_rotation)
        rotated_k, k_inverse = apply_rotary(k, self.k_norm, shared.k_rotation)
        y, attention = shared.attention.forward(rotated_q, rotated_k, v)  # (R, H, D)
        y, skip = y.flatten(1), x  # (R, H * D), (R, E)
        if selection is not None:
            lanes, y, skip = selection.lanes, y[selection.index], x[selection.index]
        (residual,), o_low = self.o.forward(y, lanes, factors, plus=skip)  # (S, E), (S, r)
        normed, residual_inverse = self.mlp_norm.forward(residual)
        (gate, up), gate_up_low = self.gate_up.forward(normed, lanes, factors)  # (S, M) twice
        (out,), down_low = self.down.forward(F.silu(gate).mul_(up), lanes, factors, plus=residual)
        return out, LayerTape(
            x,
            x_inverse,
            q,
            k,
            q_inverse,
            k_inverse,
            qkv_low,
            attention,
            y,
            o_low,
            residual,
            residual_inverse,
            gate,
            up,
            gate_up_low,
            down_low,
        )

    def backward(
        self,
        d_out: Tensor,
        tape: LayerTape,
        shared: Pass,
        selection: Selection | None,
        *,
        wants_rows: bool,
    ) -> Tensor | None:
        """Write the factors' gradients, and return that of the layer's input, ``(R, E)``.

        Args:
            d_out: Shape ``(S, E)``.
            tape: As :meth:`forward` returned it.
            shared: As in :meth:`forward`.
            selection: As in :meth:`forward`.
            wants_rows: Whether the gradient of the input is needed; the first layer's is not.
        """
        factors, trains_a = shared.factors, shared.trains_lora_a
        assert factors is not None
        lanes = shared.lanes if selection is None else selection.lanes

        silu = F.silu(tape.gate)
        d_product = self.down.backward(
            [d_out], silu * tape.up, tape.down_low, lanes, factors, trains_lora_a=trains_a
        )
        assert d_product is not None
        d_gate = torch.ops.aten.silu_backward(d_product * tape.up, tape.gate)
        d_up = d_product.mul_(silu)
        normed = self.mlp_norm.again(tape.residual, tape.residual_inverse)
        d_normed = self.gate_up.backward(
            [d_gate, d_up], normed, tape.gate_up_low, lanes, factors, trains_lora_a=trains_a
        )
        assert d_normed is not None
        d_residual = self.mlp_norm.backward(d_normed, tape.residual, tape.residual_inverse)
        d_residual += d_out

        d_y = self.o.backward(
            [d_residual], tape.y, tape.o_low, lanes, factors, trains_lora_a=trains_a
        )
        assert d_y is not None
        if selection is not None:
            d_y = _put_back(d_y, selection.index, len(tape.x))
            d_residual = _put_back(d_residual, selection.index, len(tape.x))
        d_q, d_k, d_v = shared.attention.backward(self._by_head(d_y), tape.attention)
        d_q = apply_rotary_backward(d_q, tape.q, tape.q_inverse, self.q_norm, shared.q_rotation)
        d_k = apply_rotary_backward(d_k, tape.k, tape.k_inverse, self.k_norm, shared.k_rotation)
        normed = self.attention_norm.again(tape.x, tape.x_inverse)
        d_normed = self.qkv.backward(
            [part.flatten(1) for part in (d_q, d_k, d_v)],
            normed,
            tape.qkv_low,
            shared.lanes,
            factors,
            wants_rows=wants_rows,
            trains_lora_a=trains_a,
        )
        if d_normed is None:
            return None
        d_x = self.attention_norm.backward(d_normed, tape.x, tape.x_inverse)
        return d_x.add_(d_residual)

    def _by_head(self, rows: Tensor) -> Tensor:
        return rows.view(len(rows), -1, self.head_dim)


def apply_rotary(
    heads: Tensor, norm: RmsNorm | None, rotation: Rotation
) -> tuple[Tensor, Tensor | None]:
    """Normalise heads where the model does, and rotate them; return the inverse of the norm too."""
    if norm is None:
        return rotation(heads), None
    normed, inverse = norm.forward(heads)
    return rotation(normed), inverse


def apply_rotary_backward(
    gradient: Tensor,
    heads: Tensor,
    inverse: Tensor | None,
    norm: RmsNorm | None,
    rotation: Rotation,
) -> Tensor:
    """Return the gradient of the heads from that of what :func:`apply_rotary` returned."""
    d_normed = rotation.backward(gradient)
    if norm is None or inverse is None:
        return d_normed
    return norm.backward(d_normed, heads, inverse)


def _put_back(selected: Tensor, index: Tensor, num_rows: int) -> Tensor:
    return selected.new_zeros(num_rows, selected.shape[1]).index_add_(0, index, selected)
