"""Frozen linear layers of the same rows, each with the factors of all lanes."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from pkgllm.lm.lanes.lora_factors import Slot, StackedFactors
from pkgllm.lm.lanes.projection import linear, linear_plus
from pkgllm.lm.lanes.stack import Lanes


@dataclass(frozen=True, slots=True)
class FrozenLinear:
    """One frozen layer."""

    weight: Tensor
    """Shape ``(out, in)``."""
    bias: Tensor | None
    slot: Slot | None
    """Of its factors; None where it has none."""


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
        """Those of the adapted layers, which stand together in the adapter's vector."""
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
            plus: Is added to the first result.

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
        low = lanes.product(rows, factors.first(self.slots)).mul_(factors.scale)
        for index, part in self._parts(low):
            slot = self.layers[index].slot
            assert slot is not None
            outputs[index] = lanes.add_product(outputs[index], part, factors.second(slot))
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
        trains_first: bool = True,
    ) -> Tensor | None:
        """Write the factors' gradients, and return that of the rows.

        Args:
            gradients: Of the results, in order.
            rows: As they were mapped.
            low: As :meth:`forward` returned it.
            lanes: Whose rows they are.
            factors: As in :meth:`forward`.
            wants_rows: Whether the gradient of the rows is needed.
            trains_first: Whether ``A`` is trained.
        """
        found = None
        if wants_rows:
            for layer, gradient in zip(self.layers, gradients, strict=True):
                mapped = layer.weight.t()
                found = (
                    linear(gradient, mapped)
                    if found is None
                    else linear_plus(gradient, mapped, found)
                )
        if low is None:
            return found
        low_gradient = low.new_empty(low.shape)
        for (index, part), (_, part_gradient) in zip(
            self._parts(low), self._parts(low_gradient), strict=True
        ):
            slot = self.layers[index].slot
            assert slot is not None
            lanes.write_outer(factors.second_gradient(slot), gradients[index], part)
            part_gradient.copy_(lanes.product(gradients[index], factors.second(slot).mT))
        low_gradient.mul_(factors.scale)
        if trains_first:
            lanes.write_outer(factors.first_gradient(self.slots), low_gradient, rows)
        if found is not None:
            found = lanes.add_product(found, low_gradient, factors.first(self.slots).mT)
        return found

    def _parts(self, low: Tensor) -> list[tuple[int, Tensor]]:
        """Return the index of each adapted layer with its columns of the low-rank rows."""
        found, start = [], 0
        for index, layer in enumerate(self.layers):
            if layer.slot is not None:
                found.append((index, low[:, start : start + layer.slot.lora_rank]))
                start += layer.slot.lora_rank
        return found
