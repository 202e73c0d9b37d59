"""The note on privacy under a table, from a configuration and what its run spent."""

from pkgllm.config import schema
from pkgllm.privacy.mechanisms import NeighboringRelation
from pkgllm.privacy.statements import Guarantee, statement

Budgeted = schema.ExamplePrivacy | schema.ClientPrivacy

MOVED = "examples of one person train on another's device"
"""Why a run with the layout ``redistributed`` is not private."""

METRICS_LEAVE = "losses and counts leave the clients without noise"


def privacy_statement(config: schema.AnyExperiment, guarantee: Guarantee | None = None) -> str:
    """Return the note on privacy that stands under every table of results.

    Args:
        config: Of the run.
        guarantee: What the run's ledger says; None where the run has no privacy unit.
    """
    if guarantee is not None:
        return statement(guarantee)
    if isinstance(config, schema.EmbeddingExperiment):
        return f"Privacy: none; mode {config.mode.name}."
    privacy = config.privacy
    if not isinstance(privacy, schema.NoPrivacy):
        return f"Privacy: unit {privacy.name}; the epsilon that was spent is not on record."
    if config.mode.name != "federated":
        return f"Privacy: none; mode {config.mode.name}."
    reasons = []
    if privacy.report_private_metrics:
        reasons.append("losses and counts leave the clients")
    if config.layout.name == "redistributed":
        reasons.append(MOVED)
    leaves = (
        f"{' and '.join(reasons)}, so the run is not private"
        if reasons
        else "nothing but updates leaves the clients"
    )
    return f"Privacy: none, no epsilon can be given; {leaves}."


def make_guarantee(
    config: schema.Experiment,
    epsilon: float,
    fact_epsilon: float | None,
    *,
    share_epsilon: float | None = None,
    not_private: str | None = None,
    kept_by_clients: bool = False,
) -> Guarantee:
    """Return what a configuration with a unit promises at an epsilon: spent, or the budget."""
    privacy = config.privacy
    assert not isinstance(privacy, schema.NoPrivacy)
    bound = privacy.max_groups_per_fact if isinstance(privacy, schema.ExamplePrivacy) else None
    return Guarantee(
        privacy.name,
        epsilon,
        privacy.delta,
        privacy.accountant,
        neighboring_relation=NeighboringRelation.ZERO_OUT_ONE
        if schema.has_local_noise(privacy)
        else NeighboringRelation.ADD_OR_REMOVE_ONE,
        fact_epsilon=fact_epsilon,
        max_groups_per_fact=bound,
        share_epsilon=share_epsilon,
        min_shares=min_shares(config),
        not_private=METRICS_LEAVE if privacy.report_private_metrics else not_private,
        kept_by_clients=kept_by_clients,
    )


def min_shares(config: schema.Experiment) -> int | None:
    """Return how many shares make up the noise; None where clients add none."""
    if not schema.has_local_noise(config.privacy):
        return None
    assert config.mode.name == "federated"
    return config.mode.min_updates
