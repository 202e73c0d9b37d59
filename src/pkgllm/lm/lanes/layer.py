"""One layer of a decoder over lanes, forwards and backwards.

Gradients are written out, because only those of the rows and the factors exist: the rest of the
model is frozen. What a backward pass needs is chosen to be little.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pkgllm.lm.lanes.group_attention import GroupAttention
from pkgllm.lm.lanes.linear import LaneLinear
from pkgllm.lm.lanes.lora_factors import StackedFactors
from pkgllm.lm.lanes.rms_norm import RmsNorm
from pkgllm.lm.lanes.rotary import Rotation
from pkgllm.lm.lanes.stack import Lanes


@dataclass(frozen=True, slots=True)
class Pass:
    """What all layers of a pass share."""

    lanes: Lanes
    factors: StackedFactors | None
    attention: GroupAttention
    query_rotation: Rotation
    key_rotation: Rotation
    trains_first: bool
    """Whether ``A`` is trained, or only ``B``."""


@dataclass(frozen=True, slots=True)
class Kept:
    """The rows that go on after the attention of the last layer: those that predict something."""

    index: Tensor
    """Shape ``(kept,)``, int64. Padding may repeat a row."""
    lanes: Lanes


@dataclass(frozen=True, slots=True)
class LayerTape:
    """What the backward pass of a layer needs. Names as in :meth:`LaneLayer.forward`."""

    rows: Tensor
    inverse_before_attention: Tensor
    query: Tensor
    key: Tensor
    inverse_query: Tensor | None
    inverse_key: Tensor | None
    low_heads: Tensor | None
    attention: Any
    seen: Tensor
    low_output: Tensor | None
    middle: Tensor
    inverse_before_mlp: Tensor
    gate: Tensor
    up: Tensor
    low_arms: Tensor | None
    low_down: Tensor | None


@dataclass(frozen=True, slots=True)
class LaneLayer:
    """The parts of a layer."""

    before_attention: RmsNorm
    heads: LaneLinear
    """To queries, keys and values."""
    query_norm: RmsNorm | None
    key_norm: RmsNorm | None
    output: LaneLinear
    before_mlp: RmsNorm
    arms: LaneLinear
    """To gate and up."""
    down: LaneLinear
    head_dim: int

    def forward(self, rows: Tensor, shared: Pass, kept: Kept | None) -> tuple[Tensor, LayerTape]:
        """Return the layer's output, and what :meth:`backward` needs.

        Args:
            rows: Shape ``(rows, hidden)``.
            shared: What all layers share.
            kept: Rows of the output; all when absent.
        """
        lanes, factors = shared.lanes, shared.factors
        normed, inverse_before_attention = self.before_attention.forward(rows)
        (query, key, value), low_heads = self.heads.forward(normed, lanes, factors)
        query, key, value = (self._heads(flat) for flat in (query, key, value))
        turned_query, inverse_query = _turn(query, self.query_norm, shared.query_rotation)
        turned_key, inverse_key = _turn(key, self.key_norm, shared.key_rotation)
        seen, attention = shared.attention.forward(turned_query, turned_key, value)
        seen, through = seen.flatten(1), rows
        if kept is not None:
            lanes, seen, through = kept.lanes, seen[kept.index], rows[kept.index]
        (middle,), low_output = self.output.forward(seen, lanes, factors, plus=through)
        normed, inverse_before_mlp = self.before_mlp.forward(middle)
        (gate, up), low_arms = self.arms.forward(normed, lanes, factors)
        (found,), low_down = self.down.forward(F.silu(gate).mul_(up), lanes, factors, plus=middle)
        tape = LayerTape(
            rows,
            inverse_before_attention,
            query,
            key,
            inverse_query,
            inverse_key,
            low_heads,
            attention,
            seen,
            low_output,
            middle,
            inverse_before_mlp,
            gate,
            up,
            low_arms,
            low_down,
        )
        return found, tape

    def backward(
        self,
        gradient: Tensor,
        tape: LayerTape,
        shared: Pass,
        kept: Kept | None,
        *,
        wants_rows: bool,
    ) -> Tensor | None:
        """Write the factors' gradients, and return that of the layer's input.

        Args:
            gradient: Of the output.
            tape: As :meth:`forward` returned it.
            shared: As in :meth:`forward`.
            kept: As in :meth:`forward`.
            wants_rows: Whether the gradient of the input is needed; the first layer's is not.
        """
        factors, first = shared.factors, shared.trains_first
        assert factors is not None
        lanes = shared.lanes if kept is None else kept.lanes

        act = F.silu(tape.gate)
        of_act = self.down.backward(
            [gradient], act * tape.up, tape.low_down, lanes, factors, trains_first=first
        )
        assert of_act is not None
        of_gate = torch.ops.aten.silu_backward(of_act * tape.up, tape.gate)
        normed = self.before_mlp.again(tape.middle, tape.inverse_before_mlp)
        of_normed = self.arms.backward(
            [of_gate, of_act.mul_(act)], normed, tape.low_arms, lanes, factors, trains_first=first
        )
        assert of_normed is not None
        of_middle = self.before_mlp.backward(of_normed, tape.middle, tape.inverse_before_mlp)
        of_middle += gradient

        of_seen = self.output.backward(
            [of_middle], tape.seen, tape.low_output, lanes, factors, trains_first=first
        )
        assert of_seen is not None
        if kept is not None:
            of_seen = _put_back(of_seen, kept.index, len(tape.rows))
            of_middle = _put_back(of_middle, kept.index, len(tape.rows))
        of_query, of_key, of_value = shared.attention.backward(self._heads(of_seen), tape.attention)
        of_query = _turn_back(
            of_query, tape.query, tape.inverse_query, self.query_norm, shared.query_rotation
        )
        of_key = _turn_back(of_key, tape.key, tape.inverse_key, self.key_norm, shared.key_rotation)
        normed = self.before_attention.again(tape.rows, tape.inverse_before_attention)
        of_normed = self.heads.backward(
            [part.flatten(1) for part in (of_query, of_key, of_value)],
            normed,
            tape.low_heads,
            shared.lanes,
            factors,
            wants_rows=wants_rows,
            trains_first=first,
        )
        if of_normed is None:
            return None
        of_rows = self.before_attention.backward(
            of_normed, tape.rows, tape.inverse_before_attention
        )
        return of_rows.add_(of_middle)

    def _heads(self, rows: Tensor) -> Tensor:
        return rows.view(len(rows), -1, self.head_dim)


def _turn(heads: Tensor, norm: RmsNorm | None, rotation: Rotation) -> tuple[Tensor, Tensor | None]:
    if norm is None:
        return rotation(heads), None
    normed, inverse = norm.forward(heads)
    return rotation(normed), inverse


def _turn_back(
    gradient: Tensor,
    heads: Tensor,
    inverse: Tensor | None,
    norm: RmsNorm | None,
    rotation: Rotation,
) -> Tensor:
    turned = rotation.backward(gradient)
    if norm is None or inverse is None:
        return turned
    return norm.backward(turned, heads, inverse)


def _put_back(kept: Tensor, index: Tensor, num_rows: int) -> Tensor:
    return kept.new_zeros(num_rows, kept.shape[1]).index_add_(0, index, kept)
