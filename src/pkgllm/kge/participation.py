"""Which clients took part in rounds, and whether that was better than training alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean


@dataclass(frozen=True, slots=True)
class EmbeddingParticipation:
    """How many rounds each training client took part in.

    Example:
        >>> EmbeddingParticipation({"a": 2, "b": 0, "c": 1, "d": 1}).summary()
        {'coverage': 0.75, 'mean_rounds': 1.0, 'fewest_rounds': 0, 'most_rounds': 2}
    """

    rounds: Mapping[str, int]
    """Of each client, 0 included; at least one client."""

    @property
    def coverage(self) -> float:
        """Share of the clients that ever took part."""
        return fmean(count > 0 for count in self.rounds.values())

    def summary(self) -> dict[str, float | int]:
        """Return the coverage, and the mean, fewest and most rounds of a client."""
        counts = list(self.rounds.values())
        return {
            "coverage": self.coverage,
            "mean_rounds": fmean(counts),
            "fewest_rounds": min(counts),
            "most_rounds": max(counts),
        }


def below_isolation(
    federated: Mapping[str, float], isolation: Mapping[str, float], *, metric: str = "mrr"
) -> str | None:
    """Return the remark of a table on a federated run that is worse than training alone, or None.

    Args:
        federated: Metrics of the run on validation, by name; higher is better.
        isolation: Those of the same model, trained with the exchange ``isolation``.
        metric: The one that is compared.

    Raises:
        ValueError: If either lacks the metric, or it is not a number.

    Example:
        >>> below_isolation({"mrr": 0.05}, {"mrr": 0.08})
        'below isolation on validation: mrr 0.0500, alone 0.0800'
        >>> below_isolation({"mrr": 0.08}, {"mrr": 0.08}) is None
        True
    """
    values = []
    for name, metrics in (("federated", federated), ("isolation", isolation)):
        value = metrics.get(metric, float("nan"))
        if value != value:
            raise ValueError(
                f"{name} must hold a number for {metric!r}, got {sorted(metrics)}; evaluate both "
                "on validation"
            )
        values.append(value)
    together, alone = values
    if together >= alone:
        return None
    return f"below isolation on validation: {metric} {together:.4f}, alone {alone:.4f}"
