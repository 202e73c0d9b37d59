"""The findings of a privacy audit as a table for the terminal."""

from collections.abc import Sequence

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
