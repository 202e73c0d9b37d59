"""What privacy audits find, as tables for the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from pkgllm.privacy.audit import Finding

NOTES = (
    "Lower bounds lie far below the true epsilon even where nothing is wrong: a low one proves "
    "nothing, one above what was accounted for proves a fault, at 95 % for the bounds of a case "
    "together.",
    "The mechanism is audited on contributions made for the purpose; that what is trained goes "
    "through it is for the tests to show.",
)


CANARY_NOTES = (
    "AUROC 0.5 and a true positive rate of 1 % are chance. Scores are by how much the adapter "
    "raised the log-probability of a made-up title, so what the base model makes of it is taken "
    "off.",
    "The epsilons of the first two bounds are lower bounds at 95 % together; the last one is an "
    "estimate, because canaries of one run influence each other.",
    "A canary that enters several groups is as many units of privacy unit example. For unit client "
    "the bounds hold where no client has two canaries.",
)


def findings_table(findings: Sequence[Finding]) -> Table:
    """Return one row for each finding: its value, what it must be, and whether it is."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for heading in ("case", "statistic"):
        table.add_column(heading, overflow="fold")
    for heading in ("value", "must be", "verdict"):
        table.add_column(heading, no_wrap=True)
    for finding in findings:
        table.add_row(
            finding.case,
            finding.statistic,
            f"{finding.value:.3f}",
            _range(finding),
            Text("good" if finding.passed else "FAULT", "" if finding.passed else "bold red"),
        )
    return table


def _range(finding: Finding) -> str:
    if finding.low == 0:
        return f"at most {finding.high:.3f}"
    return f"{finding.low:.3f} to {finding.high:.3f}"


def canaries_table(results: Sequence[Mapping[str, Any]]) -> Table:
    """Return one row for each number of repeats.

    Args:
        results: As ``canary_results.json`` holds them.
    """
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for heading in (
        "put in",
        "canaries",
        "took part",
        "AUROC",
        "TPR at\n1 % FPR",
        "epsilon,\none run",
        "epsilon,\nf-DP",
        "epsilon,\nCl.-Pearson",
    ):
        table.add_column(heading, no_wrap=True, justify="right")
    for row in results:
        counts = (f"{row['repeats']} x", str(row["num_canaries"]), str(row["num_included"]))
        values = (
            row["auroc"],
            row["true_positive_rate"],
            row["one_run_epsilon"],
            row["f_dp_epsilon"],
            row["clopper_pearson_epsilon"],
        )
        table.add_row(*counts, *(f"{value:.3f}" for value in values))
    return table
