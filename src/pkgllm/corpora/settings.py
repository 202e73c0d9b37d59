"""Who of a corpus takes part, and what of each client is held out."""

from dataclasses import dataclass
from typing import Literal

from pkgllm.bounds import Positive, Share

Restated = Literal["latest", "first"]
"""Which statement gives a fact its time that was stated more than once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clients:
    """Who takes part."""

    min_liked: Positive = 1
    """Liked facts that a client needs, to have something to hold out."""
    below_min_liked: Literal["refuse", "leave_out"] = "refuse"
    """What a client with fewer is: an error, or left out and counted in the report."""
    unseen_share: Share = 0.1
    """Share of the clients that take no part in training."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """What is held out of each client's liked facts, latest first.

    Raises:
        ValueError: If both shares together leave nothing to train on.
    """

    test_share: Share = 0.2
    """Share of the liked facts held out for the test, at least one fact. With 0 nothing is, and
    nobody can be ranked: for people who train on their own machines and want all to count."""
    validation_share: Share = 0.1
    """Share of the liked facts, before those, held out for validation."""
    restated_facts: Restated = "latest"
    """Which statement gives a fact its time that was stated more than once. With ``first`` nothing
    is asked for that the person had said before."""

    def __post_init__(self) -> None:
        if self.test_share + self.validation_share >= 1:
            raise ValueError(
                "test_share + validation_share must be below 1, "
                f"got {self.test_share + self.validation_share:g}"
            )
