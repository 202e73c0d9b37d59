"""What a run guarantees: its file, and the words that stand under every table of results."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pkgllm.errors import PrivacyError, RunError
from pkgllm.privacy.mechanisms import Accountant, NeighboringRelation, Unit
from pkgllm.privacy.unit import NoisyUnit
from pkgllm.runs.records import read_object

GUARANTEE = "privacy.json"
"""File of a run's guarantee, written when training is done."""

METRICS_LEAVE = "losses and counts leave the clients without noise"


@dataclass(frozen=True, slots=True)
class Guarantee:
    """What a run guarantees, once it is done."""

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


def guarantee_of(
    unit: NoisyUnit,
    epsilon: float,
    fact_epsilon: float | None,
    *,
    min_shares: int | None = None,
    share_epsilon: float | None = None,
    not_private: str | None = None,
    kept_by_clients: bool = False,
) -> Guarantee:
    """Return the guarantee of a unit at an epsilon: the spent one, or the budget."""
    return Guarantee(
        unit.name,
        epsilon,
        unit.delta,
        unit.accountant,
        neighboring_relation=unit.neighboring_relation,
        fact_epsilon=fact_epsilon,
        max_groups_per_fact=unit.fact_bound,
        share_epsilon=share_epsilon,
        min_shares=min_shares,
        not_private=METRICS_LEAVE if unit.report_private_metrics else not_private,
        kept_by_clients=kept_by_clients,
    )


def read_guarantee(run: Path) -> Guarantee | None:
    """Return what a finished run guarantees; None where it has no privacy unit.

    Raises:
        PrivacyError: If the file does not hold a guarantee.
    """
    return _read(run / GUARANTEE)


def read_ranked_guarantee(results: Path) -> Guarantee | None:
    """Return what a run guarantees, as the results of its ranking say.

    None where there is no privacy unit, or no ranking is finished.

    Raises:
        PrivacyError: If the file does not hold a guarantee.
    """
    return _read(results, "privacy")


def no_guarantee(mode: str, leaks: Sequence[str] | None) -> str:
    """Return the statement of a run without a privacy unit.

    Args:
        mode: How the run trains, as its configuration calls it.
        leaks: What leaves the clients beside updates; None where updates do not leave them.

    Example:
        >>> no_guarantee("federated", [])
        'Privacy: none, no epsilon can be given; nothing but updates leaves the clients.'
    """
    if leaks is None:
        return f"Privacy: none; mode {mode}."
    leaves = (
        f"{' and '.join(leaks)}, so the run is not private"
        if leaks
        else "nothing but updates leaves the clients"
    )
    return f"Privacy: none, no epsilon can be given; {leaves}."


def _read(path: Path, key: str | None = None) -> Guarantee | None:
    if not path.exists():
        return None
    try:
        record: dict[str, Any] | None = read_object(path)
        if key is not None and record is not None:
            record = record.get(key)
        if record is None:
            return None
        if record["epsilon"] is None:
            record["epsilon"] = math.inf
        if record.get("min_shares") is not None and record["share_epsilon"] is None:
            record["share_epsilon"] = math.inf
        relation = NeighboringRelation(record.pop("neighboring_relation"))
        return Guarantee(**record, neighboring_relation=relation)
    except (RunError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise PrivacyError(
            f"{path}: must hold what the run guarantees, as training writes it: {error}; restore it"
        ) from error


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
