"""An adapter as one vector, so that what concerns all its factors is one step.

First come the ``A`` of all layers, then the ``B``; layers that map the same rows stand together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pkgllm.errors import ModelError
from pkgllm.lm.adapter import AdapterState

_FIRST, _SECOND = ".lora_A.weight", ".lora_B.weight"


@dataclass(frozen=True, slots=True)
class Slot:
    """Where one layer's factors lie in an adapter's vector."""

    name: str
    """The layer, as PEFT's keys name it."""
    lora_rank: int
    in_features: int
    out_features: int
    start_first: int
    start_second: int

    @property
    def end_first(self) -> int:
        """Where ``A`` ends."""
        return self.start_first + self.lora_rank * self.in_features

    @property
    def end_second(self) -> int:
        """Where ``B`` ends."""
        return self.start_second + self.lora_rank * self.out_features


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
        self.num_first = sum(lora_rank * n for _, n, _ in layers)
        """Values of all ``A``; those of ``B`` follow."""
        self.slots: dict[str, Slot] = {}
        first, second = 0, self.num_first
        for name, in_features, out_features in layers:
            slot = Slot(name, lora_rank, in_features, out_features, first, second)
            self.slots[name] = slot
            first, second = slot.end_first, slot.end_second
        self.num_values = second
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
                for end in (_FIRST, _SECOND)
                for name in self.slots
            ]
        )

    def to_state(self, vector: Tensor) -> AdapterState:
        """Return a copy of a vector's factors by PEFT's key names, float32, on the CPU."""
        values = vector.detach().to("cpu", torch.float32, copy=True)
        found = {}
        for name, slot in self.slots.items():
            (_, first), (_, second) = _shapes(slot)
            # Parts of one vector would each be saved with the whole of it.
            found[name + _FIRST] = values[slot.start_first : slot.end_first].view(first).clone()
            found[name + _SECOND] = values[slot.start_second : slot.end_second].view(second).clone()
        return {key: found[key] for key in sorted(found)}


def _shapes(slot: Slot) -> tuple[tuple[str, tuple[int, int]], tuple[str, tuple[int, int]]]:
    return (
        (_FIRST, (slot.lora_rank, slot.in_features)),
        (_SECOND, (slot.out_features, slot.lora_rank)),
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

    def first(self, slots: Sequence[Slot]) -> Tensor:
        """Return ``A`` of neighbouring layers, one upon the other: ``(lanes, ranks, in)``."""
        return self._converted(self._first(self.values, slots))

    def second(self, slot: Slot) -> Tensor:
        """Return ``B`` of a layer: ``(lanes, out, lora_rank)``."""
        return self._converted(self._second(self.values, slot))

    def first_gradient(self, slots: Sequence[Slot]) -> Tensor:
        """Return where the gradient of :meth:`first` goes."""
        assert self.gradients is not None
        return self._first(self.gradients, slots)

    def second_gradient(self, slot: Slot) -> Tensor:
        """Return where the gradient of :meth:`second` goes."""
        assert self.gradients is not None
        return self._second(self.gradients, slot)

    def _converted(self, part: Tensor) -> Tensor:
        # A conversion would write out for every lane what an expanded tensor holds once.
        held = part[:1] if part.stride(0) == 0 else part
        return held.to(self.dtype).expand_as(part)

    @staticmethod
    def _first(values: Tensor, slots: Sequence[Slot]) -> Tensor:
        part = values[:, slots[0].start_first : slots[-1].end_first]
        return part.view(len(part), -1, slots[0].in_features)

    @staticmethod
    def _second(values: Tensor, slot: Slot) -> Tensor:
        part = values[:, slot.start_second : slot.end_second]
        return part.view(len(part), slot.out_features, slot.lora_rank)
