"""The results of a run for notebooks and papers: tables, data frames, plots."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pkgllm.errors import RunError
from pkgllm.report.document import Document
from pkgllm.report.plots import draw_plots
from pkgllm.report.ranking import ranking_document, ranking_rows
from pkgllm.report.run_report import RunSummary, run_document
from pkgllm.report.to_html import html
from pkgllm.report.to_json import json_document
from pkgllm.report.to_latex import latex
from pkgllm.report.to_markdown import markdown

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True, slots=True)
class RunResults:
    """The results of a run, finished or not; a notebook shows their table."""

    run: RunSummary

    @property
    def values(self) -> Mapping[str, Any]:
        """The contents of ``results.json``.

        Raises:
            RunError: If the run has not ended.
        """
        if self.run.results is None:
            raise RunError(
                f"{self.run.title}: there are no results, since the run has not ended; train on "
                "with pkgllm train --resume"
            )
        return self.run.results

    def table(self) -> Document:
        """Return the tables of ``results.md``; ``pkgllm.report.to_terminal.show`` prints them.

        Raises:
            RunError: If the run has not ended.
        """
        notes = tuple(self.values.get("notes", ()))
        return ranking_document(self.values, title=self.run.title, notes=notes)

    def report(self) -> Document:
        """Return the report of the run: what it is, its rounds, validations and results."""
        return run_document(self.run, {})

    def to_frame(self) -> "DataFrame":
        """Return every estimate as one row.

        Columns: ``clients`` (``all``, ``seen``, ``unseen``, or ``macro`` for the mean over clients
        of each client's own value), ``model``, ``metric``, ``value``, and ``low`` and ``high``,
        the ends of the 95 % interval (missing for a single client).

        Raises:
            RunError: If the run has not ended, or pandas is not installed.
        """
        return _frame(list(ranking_rows(self.values)))

    def rounds_frame(self) -> "DataFrame":
        """Return every round's measures as one row; those of parts are named ``part.measure``.

        Raises:
            RunError: If pandas is not installed.
        """
        return _frame([_flat(record) for record in self.run.rounds])

    def plots(self) -> dict[str, dict[str, bytes]]:
        """Return each plot that the run has numbers for, by name and format (png, svg)."""
        return draw_plots(self.run)

    def to_markdown(self) -> str:
        """Return the table as Markdown."""
        return markdown(self.table())

    def to_latex(self) -> str:
        """Return the table as LaTeX, which needs the package ``booktabs``."""
        return latex(self.table())

    def to_json(self) -> dict[str, Any]:
        """Return the table as objects that ``json`` writes."""
        return json_document(self.table())

    def _repr_html_(self) -> str:
        return html(self.report() if self.run.results is None else self.table())


def _flat(record: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in record.items():
        if name in ("cohort", "failed"):
            flat[name] = len(value)
        elif isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _frame(rows: list[dict[str, Any]]) -> "DataFrame":
    try:
        from pandas import DataFrame
    except ImportError as error:
        raise RunError(
            f"data frames need pandas, which cannot be imported: {error}; install it with "
            "pip install 'pkgllm[notebook]'"
        ) from error
    return DataFrame(rows)
