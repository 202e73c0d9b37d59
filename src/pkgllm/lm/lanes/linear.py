"""Frozen linear layers of the same rows, each with the factors of all lanes."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from pkgllm.lm.lanes.lora_factors import Slot, StackedFactors
from pkgllm.lm.lanes.stack import Lanes
from pkgllm.lm.projection import linear, linear_plus


@dataclass(frozen=True, slots=True)
class FrozenLinear:
    """One frozen layer."""

    weight: Tensor
    """Shape ``(out, in)``."""
    bias: Tensor | None
    slot: Slot | None
    """Where its LoRA factors lie; None where it has none."""


@dataclass(frozen=True, slots=True)
class LaneLinear:
    r"""Several frozen layers that map the same rows.

    .. math:: y_i = x W_i^T + b_i + s \, (x A_i^T) B_i^T

    Source of the last term: Hu et al. 2021, arXiv:2106.09685, eq. 3. The ``A`` of all layers make
    one product.
    """

    layers: tuple[FrozenLinear, ...]

    @property
    def slots(self) -> list[Slot]:
        """Places of the adapted layers' factors, side by side in the adapter's vector."""
        return [layer.slot for layer in self.layers if layer.slot is not None]

    def forward(
        self,
        rows: Tensor,
        lanes: Lanes,
        factors: StackedFactors | None,
        *,
        plus: Tensor | None = None,
    ) -> tuple[list[Tensor], Tensor | None]:
        """Map rows.

        Args:
            rows: Shape ``(rows, in)``.
            lanes: Whose rows they are.
            factors: None for the base model alone.
            plus: Added to the first result.

        Returns:
            The results, each of shape ``(rows, out)``, and ``s x A^T``, which :meth:`backward`
            needs; None without factors.
        """
        outputs = [
            linear(rows, layer.weight, layer.bias)
            if plus is None or index or layer.bias is not None
            else linear_plus(rows, layer.weight, plus)
            for index, layer in enumerate(self.layers)
        ]
        if plus is not None and self.layers[0].bias is not None:
            outputs[0] += plus
        if factors is None or not self.slots:
            return outputs, None
        low = lanes.product(rows, factors.lora_a(self.slots)).mul_(factors.scale)
        for index, part in self._parts(low):
            slot = self.layers[index].slot
            assert slot is not None
            outputs[index] = lanes.add_product(outputs[index], part, factors.lora_b(slot))
        return outputs, low

    def backward(
        self,
        gradients: Sequence[Tensor],
        rows: Tensor,
        low: Tensor | None,
        lanes: Lanes,
        factors: StackedFactors,
        *,
        wants_rows: bool = True,
        trains_lora_a: bool = True,
    ) -> Tensor | None:
        """Write the factors' gradients, and return that of the rows if ``wants_rows``.

        Args:
            gradients: Of the results, in order.
            rows: As in :meth:`forward`.
            low: As :meth:`forward` returned it.
            lanes: As in :meth:`forward`.
            factors: As in :meth:`forward`.
            wants_rows: Whether the gradient of the rows is needed.
            trains_lora_a: Whether ``A`` is trained, or only ``B``.
        """
        d_rows = None
        if wants_rows:
            for layer, gradient in zip(self.layers, gradients, strict=True):
                transposed = layer.weight.t()
                d_rows = (
                    linear(gradient, transposed)
                    if d_rows is None
                    else linear_plus(gradient, transposed, d_rows)
                )
        if low is None:
            return d_rows
        d_low = low.new_empty(low.shape)
        for (index, part), (_, d_part) in zip(self._parts(low), self._parts(d_low), strict=True):
            slot = self.layers[index].slot
            assert slot is not None
            lanes.write_outer(factors.lora_b_gradient(slot), gradients[index], part)
            d_part.copy_(lanes.product(gradients[index], factors.lora_b(slot).mT))
        d_low.mul_(factors.scale)
        if trains_lora_a:
            lanes.write_outer(factors.lora_a_gradient(self.slots), d_low, rows)
        if d_rows is not None:
            d_rows = lanes.add_product(d_rows, d_low, factors.lora_a(self.slots).mT)
        return d_rows

    def _parts(self, low: Tensor) -> list[tuple[int, Tensor]]:
        """Return the index of each adapted layer with its columns of the low-rank rows."""
        parts, start = [], 0
        for index, layer in enumerate(self.layers):
            if layer.slot is not None:
                parts.append((index, low[:, start : start + layer.slot.lora_rank]))
                start += layer.slot.lora_rank
        return parts
