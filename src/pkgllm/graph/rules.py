"""Rules: what a person wants to see less or more of, with provenance."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from pkgllm.graph.personal_graph import Provenance

Direction = Literal["avoid", "prefer"]
DIRECTIONS: tuple[Direction, ...] = get_args(Direction)


@dataclass(frozen=True, slots=True)
class Rule:
    """One wish of a person about all items with a property.

    Raises:
        ValueError: If a text is empty, the direction is unknown, or the strength is out of
            range.

    Example:
        >>> said = Provenance("own_answer", "conversation/1")
        >>> Rule("r1", "genre", "Horror", "avoid", 1.0, said).value
        'Horror'
        >>> Rule("r1", "genre", "Horror", "avoid", 0.0, said)
        Traceback (most recent call last):
        ...
        ValueError: rule 'r1': strength must be above 0 and at most 1, got 0.0
    """

    id: str
    """Unique within its graph."""
    scope: str
    """Which property: for films ``genre``, ``person``, ``decade``, ``keyword`` or ``franchise``."""
    value: str
    """The value of the property, for example ``Harrison Ford``."""
    direction: Direction
    strength: float
    """Weight, above 0 and at most 1."""
    provenance: Provenance

    def __post_init__(self) -> None:
        for what, text in (("id", self.id), ("scope", self.scope), ("value", self.value)):
            if not text.strip():
                raise ValueError(f"rule {self.id!r}: {what} must not be empty, got {text!r}")
        if self.direction not in DIRECTIONS:
            raise ValueError(
                f"rule {self.id!r}: direction must be one of {', '.join(DIRECTIONS)}, got "
                f"{self.direction!r}"
            )
        if not (math.isfinite(self.strength) and 0 < self.strength <= 1):
            raise ValueError(
                f"rule {self.id!r}: strength must be above 0 and at most 1, got {self.strength}"
            )
