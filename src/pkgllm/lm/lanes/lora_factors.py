"""An adapter as one vector, so that an optimizer or a mean handles all its factors in one step.

The ``A`` of all layers come first, then the ``B``; layers that map the same rows are neighbours.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pkgllm.errors import ModelError
from pkgllm.lm.adapter import AdapterState

_A, _B = ".lora_A.weight", ".lora_B.weight"


@dataclass(frozen=True, slots=True)
class Slot:
    """Where one layer's factors lie in an adapter's vector."""

    name: str
    """The layer, as PEFT's keys name it."""
    lora_rank: int
    in_features: int
    out_features: int
    start_a: int
    start_b: int

    @property
    def end_a(self) -> int:
        """Where ``A`` ends."""
        return self.start_a + self.lora_rank * self.in_features

    @property
    def end_b(self) -> int:
        """Where ``B`` ends."""
        return self.start_b + self.lora_rank * self.out_features


class FactorLayout:
    """Places the factors of an adapter in a vector.

    Args:
        layers: Name, ``in_features`` and ``out_features`` of each adapted layer, in order.
        lora_rank: Inner dimension of the factors.

    Example:
        >>> layout = FactorLayout([("q", 3, 2)], lora_rank=1)
        >>> state = {"q.lora_A.weight": torch.ones(1, 3), "q.lora_B.weight": torch.zeros(2, 1)}
        >>> layout.to_vector(state).tolist()
        [1.0, 1.0, 1.0, 0.0, 0.0]
    """

    def __init__(self, layers: Sequence[tuple[str, int, int]], *, lora_rank: int) -> None:
        self.num_lora_a = sum(lora_rank * n for _, n, _ in layers)
        """Values of all ``A``; those of ``B`` follow."""
        self.slots: dict[str, Slot] = {}
        start_a, start_b = 0, self.num_lora_a
        for name, in_features, out_features in layers:
            slot = Slot(name, lora_rank, in_features, out_features, start_a, start_b)
            self.slots[name] = slot
            start_a, start_b = slot.end_a, slot.end_b
        self.num_values = start_b
        """Values of the whole adapter."""

    def to_vector(self, state: Mapping[str, Tensor]) -> Tensor:
        """Return an adapter's values, float32, on the CPU. Shape ``(num_values,)``.

        Raises:
            ModelError: If a key is missing, foreign, or of another shape.
        """
        shapes = {
            name + end: shape for name, slot in self.slots.items() for end, shape in _shapes(slot)
        }
        wrong = [
            key
            for key in sorted(shapes.keys() | state.keys())
            if key not in shapes or key not in state or tuple(state[key].shape) != shapes[key]
        ]
        if wrong:
            key = wrong[0]
            raise ModelError(
                f"the adapter does not fit the base model: {key} must have shape "
                f"{shapes.get(key, 'none, as it is foreign')}, got "
                f"{tuple(state[key].shape) if key in state else 'nothing'}"
            )
        return torch.cat(
            [
                state[name + end].detach().to("cpu", torch.float32).reshape(-1)
                for end in (_A, _B)
                for name in self.slots
            ]
        )

    def to_state(self, vector: Tensor) -> AdapterState:
        """Return a copy of a vector's factors by PEFT's key names, float32, on the CPU."""
        values = vector.detach().to("cpu", torch.float32, copy=True)
        state = {}
        for name, slot in self.slots.items():
            (_, shape_a), (_, shape_b) = _shapes(slot)
            # Without a copy, each part would be saved with the whole vector.
            state[name + _A] = values[slot.start_a : slot.end_a].view(shape_a).clone()
            state[name + _B] = values[slot.start_b : slot.end_b].view(shape_b).clone()
        return dict(sorted(state.items()))


def _shapes(slot: Slot) -> tuple[tuple[str, tuple[int, int]], tuple[str, tuple[int, int]]]:
    return (
        (_A, (slot.lora_rank, slot.in_features)),
        (_B, (slot.out_features, slot.lora_rank)),
    )


@dataclass(frozen=True, slots=True)
class StackedFactors:
    """The factors of all lanes, and where their gradients go."""

    values: Tensor
    """Shape ``(lanes, num_values)``, float32; expanded where all lanes have the same."""
    gradients: Tensor | None
    """Shape ``(lanes, num_values)``, float32; overwritten by each backward pass."""
    scale: float
    """Of the product of the factors: ``lora_alpha / lora_rank``, or with its square root."""
    dtype: torch.dtype
    """In which products are computed."""

    def lora_a(self, slots: Sequence[Slot]) -> Tensor:
        """Return ``A`` of neighbouring layers, stacked: ``(lanes, ranks, in)``."""
        return self._converted(self._part_a(self.values, slots))

    def lora_b(self, slot: Slot) -> Tensor:
        """Return ``B`` of a layer: ``(lanes, out, lora_rank)``."""
        return self._converted(self._part_b(self.values, slot))

    def lora_a_gradient(self, slots: Sequence[Slot]) -> Tensor:
        """Return where the gradient of :meth:`lora_a` goes."""
        assert self.gradients is not None
        return self._part_a(self.gradients, slots)

    def lora_b_gradient(self, slot: Slot) -> Tensor:
        """Return where the gradient of :meth:`lora_b` goes."""
        assert self.gradients is not None
        return self._part_b(self.gradients, slot)

    def _converted(self, part: Tensor) -> Tensor:
        # Converting an expanded tensor would store it once for every lane.
        stored = part[:1] if part.stride(0) == 0 else part
        return stored.to(self.dtype).expand_as(part)

    @staticmethod
    def _part_a(values: Tensor, slots: Sequence[Slot]) -> Tensor:
        part = values[:, slots[0].start_a : slots[-1].end_a]
        return part.view(len(part), -1, slots[0].in_features)

    @staticmethod
    def _part_b(values: Tensor, slot: Slot) -> Tensor:
        part = values[:, slot.start_b : slot.end_b]
        return part.view(len(part), slot.out_features, slot.lora_rank)
