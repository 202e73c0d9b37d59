"""What a run's privacy costs, and what audits measure, as documents."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pkgllm.privacy.audit import Finding
from pkgllm.privacy.planner import PrivacyPlan, plan_warnings
from pkgllm.privacy.statements import statement, written
from pkgllm.report.document import Cell, Column, Document, Row, Table, columns, texts

_AUDIT_NOTES = (
    "Lower bounds lie far below the true epsilon even where nothing is wrong: a low one proves "
    "nothing, one above what was accounted for proves a fault, at 95 % for the bounds of a case "
    "together.",
    "The mechanism is audited on contributions made for the purpose; that what is trained goes "
    "through it is for the tests to show.",
)
_CANARY_NOTES = (
    "AUROC 0.5 and a true positive rate of 1 % are chance. Scores are by how much the adapter "
    "raised the log-probability of a made-up title, so what the base model makes of it is taken "
    "off.",
    "The epsilons of the first two bounds are lower bounds at 95 % together; the last one is an "
    "estimate, because canaries of one run influence each other.",
    "A canary that enters several groups is as many units of privacy unit example. For unit client "
    "the bounds hold where no client has two canaries.",
)


def plan_document(plan: PrivacyPlan) -> Document:
    """Return the parts of the mechanism, what is spent by round, and warnings last."""
    if plan.guarantee.min_shares is not None:
        spent: tuple[str, ...] = ("sums", "shares")
    else:
        spent = (f"one {plan.unit}", *(("one fact",) if plan.unit == "example" else ()))
    rows = []
    for spending in plan.by_round:
        epsilons = (spending.epsilon, spending.fact_epsilon, spending.share_epsilon)
        values = (Cell(written(value), value) for value in epsilons if value is not None)
        rows.append((Cell(str(spending.round_num)), *values))
    blocks = (
        Table("Mechanism", columns("", "value"), _mechanism_rows(plan), compact=True),
        Table("Epsilon", columns("after round", *spent), tuple(rows), compact=True),
    )
    return Document(statement(plan.guarantee), blocks, tuple(_plan_remarks(plan)))


def _plan_remarks(plan: PrivacyPlan) -> Iterator[str]:
    within = "cohort" if plan.unit == "client" else "batch"
    yield (
        f"Noise by signal: noise_multiplier * sqrt(parameters) / expected {within}, the expected "
        "length of the noise on a mean, in clip norms; no mean is longer than one clip norm."
    )
    if plan.guarantee.min_shares is not None:
        yield (
            "Epsilon, sums: for whoever sees only sums of shares of the noise; shares: for the "
            "server, which sees them one by one. Who takes part counts as known, and what it "
            "contributes is hidden. Ranges are over the clients that are drawn; epsilon is that of "
            f"the one drawn most often. The noise by signal is that of {plan.denominator} shares."
        )
    if plan.unit == "example":
        yield (
            "Ranges are over the clients; epsilon is that of the worst one. The mean of a cohort "
            "has less noise by the root of its size."
        )
    yield from (f"Warning: {warning}." for warning in plan_warnings(plan))


def _mechanism_rows(plan: PrivacyPlan) -> tuple[Row, ...]:
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
    return tuple(texts(name, value) for name, value in values.items())


def _range(least: float, most: float) -> str:
    return f"{least:.4g}" if least == most else f"{least:.4g} to {most:.4g}"


def audit_document(findings: Sequence[Finding]) -> Document:
    """Return each finding's value, the range where it must lie, and whether it does."""
    rows = tuple(
        (
            *texts(finding.case, finding.statistic),
            Cell(f"{finding.value:.3f}", finding.value),
            Cell(_expected(finding)),
            Cell("good" if finding.passed else "FAULT", alarm=not finding.passed),
        )
        for finding in findings
    )
    headings = (
        *(Column(heading, wrap=True) for heading in ("case", "statistic")),
        *map(Column, ("value", "must be", "verdict")),
    )
    return Document("", (Table("", headings, rows),), _AUDIT_NOTES)


def _expected(finding: Finding) -> str:
    if finding.low == 0:
        return f"at most {finding.high:.3f}"
    return f"{finding.low:.3f} to {finding.high:.3f}"


def canaries_document(results: Sequence[Mapping[str, Any]]) -> Document:
    """Return what an adapter reveals of canaries, a row for each number of repeats."""
    measures = {
        "auroc": "AUROC",
        "true_positive_rate": "TPR at\n1 % FPR",
        "one_run_epsilon": "epsilon,\none run",
        "f_dp_epsilon": "epsilon,\nf-DP",
        "clopper_pearson_epsilon": "epsilon,\nCl.-Pearson",
    }
    headings = ("put in", "canaries", "took part", *measures.values())
    rows = tuple(
        (
            *texts(f"{row['repeats']} x", str(row["num_canaries"]), str(row["num_included"])),
            *(Cell(f"{row[key]:.3f}", row[key]) for key in measures),
        )
        for row in results
    )
    table = Table("", tuple(Column(heading, right=True) for heading in headings), rows)
    return Document("", (table,), _CANARY_NOTES)
