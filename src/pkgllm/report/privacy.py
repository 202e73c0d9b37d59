"""What a run's privacy will cost, as tables for the terminal."""

import math
from collections.abc import Iterator

from rich.table import Table

from pkgllm.privacy.plans import Plan, plan_warnings
from pkgllm.privacy.statements import written
from pkgllm.report.blocks import Block, Cell, Label
from pkgllm.report.tables import plain_table


def plan_tables(plan: Plan) -> Iterator[Table]:
    """Yield the parts of the mechanism, and what is spent by round."""
    yield plain_table(Block("Mechanism", ("", "value"), _mechanism_rows(plan)))
    if plan.guarantee.min_shares is not None:
        columns: tuple[str, ...] = ("sums", "shares")
    else:
        columns = (f"one {plan.unit}", *(("one fact",) if plan.unit == "example" else ()))
    yield plain_table(
        Block(
            "Epsilon",
            ("after round", *columns),
            tuple(
                (
                    (str(spending.round_num),),
                    tuple(
                        Cell(written(value))
                        for value in (
                            spending.epsilon,
                            spending.fact_epsilon,
                            spending.share_epsilon,
                        )
                        if value is not None
                    ),
                )
                for spending in plan.by_round
            ),
        )
    )


def plan_remarks(plan: Plan) -> tuple[str, ...]:
    """Return what a reader must know beside the numbers; warnings last."""
    within = "cohort" if plan.unit == "client" else "batch"
    found = [
        f"Noise by signal: noise_multiplier * sqrt(parameters) / expected {within}, the expected "
        "length of the noise on a mean, in clip norms; no mean is longer than one clip norm.",
    ]
    if plan.guarantee.min_shares is not None:
        found.append(
            "Epsilon, sums: for whoever sees only sums of shares of the noise; shares: for the "
            "server, which sees them one by one. Who takes part counts as known, and what it "
            "contributes is hidden. Ranges are over the clients that are drawn; epsilon is that of "
            f"the one drawn most often. The noise by signal is that of {plan.denominator} shares."
        )
    if plan.unit == "example":
        found.append(
            "Ranges are over the clients; epsilon is that of the worst one. The mean of a cohort "
            "has less noise by the root of its size."
        )
    return (*found, *(f"Warning: {warning}." for warning in plan_warnings(plan)))


def _mechanism_rows(plan: Plan) -> tuple[tuple[Label, tuple[Cell, ...]], ...]:
    source = "computed from target_epsilon" if plan.calibrated else "as given"
    relation = plan.guarantee.neighboring_relation.value.replace("_", " ")
    shares = plan.guarantee.min_shares
    hidden, shared = {}, {}
    if shares is None:
        hidden = {f"{plan.unit}s among which one is hidden": _range(*plan.num_units)}
    else:
        of_a_share = plan.noise_multiplier / math.sqrt(shares)
        shared = {
            "shares that make it up": f"{shares}, mode.min_updates",
            "noise multiplier of one share": f"{of_a_share:.4g}",
        }
    values = {
        "unit": f"{plan.unit}, {relation}",
        "training clients": str(plan.num_clients),
        **hidden,
        "delta": f"{plan.guarantee.delta:g}",
        "accountant": plan.guarantee.accountant,
        "sampling probability": _range(*plan.sampling_probability),
        "noisy steps": _range(*plan.steps),
        "noise multiplier": f"{plan.noise_multiplier:.4g}, {source}",
        **shared,
        "clip norm": f"{plan.clip_norm:g}",
        "expected cohort" if plan.unit == "client" else "expected batch": str(plan.denominator),
        "parameters of the adapter": str(plan.num_parameters),
        "noise by signal of a step": f"{plan.noise_norm:.3g}",
        "budget": "none" if plan.budget is None else f"{plan.budget:g}",
    }
    return tuple(((name,), (Cell(value),)) for name, value in values.items())


def _range(least: float, most: float) -> str:
    return f"{least:.4g}" if least == most else f"{least:.4g} to {most:.4g}"
