"""A guarantee in the words that stand under every table of results."""

import math
from dataclasses import dataclass

from pkgllm.privacy.mechanisms import Accountant, NeighboringRelation, Unit


@dataclass(frozen=True, slots=True)
class Guarantee:
    """What a run promises, once it is done."""

    unit: Unit
    epsilon: float
    """Of one unit; of the worst client where clients spend apart."""
    delta: float
    accountant: Accountant
    neighboring_relation: NeighboringRelation = NeighboringRelation.ADD_OR_REMOVE_ONE
    fact_epsilon: float | None = None
    """Of one fact, with the unit example."""
    max_groups_per_fact: int | None = None
    """Groups that one fact enters at most; goes with ``fact_epsilon``."""
    share_epsilon: float | None = None
    """Against whoever sees the clients' shares one by one, where clients add the noise; ``epsilon``
    then holds against whoever sees only sums."""
    min_shares: int | None = None
    """Shares in a sum at least; goes with ``share_epsilon``."""
    not_private: str | None = None
    """Why the numbers protect nobody, such as metrics that leave without noise."""
    kept_by_clients: bool = False
    """Whether each client keeps a ledger of its own, on its device: epsilon is then the budget that
    it keeps to, and not what was counted."""


def statement(guarantee: Guarantee) -> str:
    """Return one sentence with epsilon, delta, unit, neighbouring relation and accountant.

    Example:
        >>> statement(Guarantee("client", 3.0, 1e-3, "prv"))
        'Privacy: epsilon 3.00 at delta 0.001; unit client, add or remove one; accountant prv.'
    """
    relation = guarantee.neighboring_relation.value.replace("_", " ")
    at_most = "at most " if guarantee.kept_by_clients else ""
    parts = [
        f"epsilon {at_most}{written(guarantee.epsilon)} at delta {guarantee.delta:g}"
        f"{_seen_by(guarantee)}",
        f"unit {guarantee.unit}, {relation}",
        f"accountant {guarantee.accountant}",
    ]
    if guarantee.fact_epsilon is not None:
        parts.append(
            f"of one fact, which enters at most {guarantee.max_groups_per_fact} groups, epsilon "
            f"{written(guarantee.fact_epsilon)}"
        )
    if guarantee.kept_by_clients:
        parts.append("each client's ledger is on its device")
    if guarantee.not_private is None:
        return f"Privacy: {'; '.join(parts)}."
    return (
        f"Privacy: not private, because {guarantee.not_private}; without that {'; '.join(parts)}."
    )


def _seen_by(guarantee: Guarantee) -> str:
    if guarantee.share_epsilon is None:
        return ""
    if guarantee.min_shares == 1:
        return " for everybody, the server included"
    return (
        f" for whoever sees only sums of at least {guarantee.min_shares} shares of the noise, and "
        f"epsilon {written(guarantee.share_epsilon)} for the server, which sees single shares"
    )


def written(epsilon: float) -> str:
    """Return an epsilon in digits, rounded up so that what is written holds as well.

    Example:
        >>> written(2.991), written(float("inf"))
        ('3.00', 'infinite')
    """
    if math.isinf(epsilon):
        return "infinite"
    return f"{math.ceil(epsilon * 100 - 1e-9) / 100:.2f}"
