"""A study as tables: for the terminal (rich) and as Markdown."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table

from pkgllm.report.blocks import METRIC_HEADINGS, Block, Cell, Label, estimate, number
from pkgllm.report.tables import estimate_table, markdown_section

_PRIVACY_HEADINGS = {
    "unit": "privacy unit",
    "epsilon": "epsilon",
    "delta": "delta",
    "relation": "relation",
    "accountant": "accountant",
}


def study_tables(summary: Mapping[str, Any], *, width: int) -> Iterator[Table]:
    """Yield the tables of a study for a terminal.

    Args:
        summary: As made by ``pkgllm.studies.summary.write_summary``.
        width: Columns of the terminal; where it is too narrow, the ends of an interval stand below
            each other.
    """
    yield estimate_table(_results_block(summary, with_costs=False), width)
    yield estimate_table(_costs_block(summary), width)
    for block in _further_blocks(summary):
        yield estimate_table(block, width)


def study_title(summary: Mapping[str, Any]) -> str:
    """Return what was studied, as a heading.

    Example:
        >>> runs = [{"state": "finished"}, {"state": "failed"}]
        >>> study_title({"study": "aggregators", "runs": runs})
        'Study aggregators: 1 of 2 runs finished'
    """
    count = sum(run["state"] == "finished" for run in summary["runs"])
    return f"Study {summary['study']}: {count} of {len(summary['runs'])} runs finished"


def study_remarks(summary: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what a reader must know beside the numbers."""
    found = []
    counts = {len(point["seeds"]) for point in summary["points"]}
    if 1 in counts:
        found.append("[low, high]: 95 % cluster bootstrap interval by client, of a single run.")
    if max(counts) > 1:
        found.append(
            "Values of several runs are means over seeds; SD over seeds, with n - 1 below."
        )
    if summary["shared"]:
        found.append(f"{', '.join(summary['shared'])}: the same wherever ranked, and shown once.")
    if all(point["privacy"] is None for point in summary["points"]):
        found.append("Privacy: none; no epsilon can be given.")
    elif max(counts) > 1:
        found.append("Privacy: the largest epsilon and delta of a point's runs.")
    if any(
        (point["privacy"] or {}).get("share_epsilon") is not None for point in summary["points"]
    ):
        found.append(
            "Epsilon for whoever sees only sums of shares of the noise; after the stroke, for the "
            "server, which sees single shares."
        )
    if summary["differences"] is not None and summary["differences"]["points"]:
        found.append(
            "p: two-sided paired permutation test; a client's difference, summed over its queries "
            "and all seeds, changes sign as one. Holm p: corrected over the points, in each metric."
        )
    return (*found, *summary["notes"])


def markdown_study(summary: Mapping[str, Any], plot: str | None) -> str:
    """Return a study as one Markdown section.

    Args:
        summary: As made by ``pkgllm.studies.summary.write_summary``.
        plot: Where its plot lies, if there is one.
    """
    blocks = (_results_block(summary, with_costs=True), *_further_blocks(summary))
    text = markdown_section(study_title(summary), blocks, study_remarks(summary))
    if plot is None:
        return text
    told = "Bars: one SD over seeds to both sides, or the 95 % interval of a single run."
    return f"{text}\n![{summary['study']}]({plot})\n\n{told}\n"


def _results_block(summary: Mapping[str, Any], *, with_costs: bool) -> Block:
    metrics = summary["metrics"]
    with_sd = any(len(point["seeds"]) > 1 for point in summary["points"])
    several = any(len(point["models"]) > 1 for point in summary["points"])
    rows: list[tuple[Label, tuple[Cell, ...]]] = []
    for point in summary["points"]:
        costs = _costs(summary, point) if with_costs else ()
        if not point["models"]:
            blank = tuple(Cell(_state(summary, point)) for _ in _headings(metrics, with_sd=with_sd))
            rows.append(((point["name"],), (*blank, *costs)))
        for model, measures in point["models"].items():
            label = (point["name"], model) if several else (point["name"],)
            rows.append((label, (*_cells(measures, metrics, with_sd=with_sd), *costs)))
    blanks = tuple(Cell("") for _ in (*_PRIVACY_HEADINGS, "runs", "seconds")) if with_costs else ()
    for model, measures in summary["shared"].items():
        rows.append(((model,), (*_cells(measures, metrics, with_sd=with_sd), *blanks)))
    headings = ("point", *_headings(metrics, with_sd=with_sd))
    if with_costs:
        headings = (*headings, *_PRIVACY_HEADINGS.values(), "runs", "seconds")
    return Block("Every point", headings, tuple(rows))


def _costs_block(summary: Mapping[str, Any]) -> Block:
    rows = tuple(((point["name"],), _costs(summary, point)) for point in summary["points"])
    return Block(
        "Privacy and cost",
        ("point", *_PRIVACY_HEADINGS.values(), "runs", "seconds"),
        rows,
    )


def _further_blocks(summary: Mapping[str, Any]) -> Iterator[Block]:
    differences = summary["differences"]
    if differences is not None and differences["points"]:
        for metric in summary["metrics"]:
            yield _differences_block(differences, metric)
    failed = [run for run in summary["runs"] if run["state"] == "failed"]
    if failed:
        rows = tuple(((run["name"],), (Cell(_one_line(run["reason"])),)) for run in failed)
        yield Block("Failed runs", ("run", "reason"), rows)


def _differences_block(differences: Mapping[str, Any], metric: str) -> Block:
    heading = METRIC_HEADINGS[metric]
    rows = []
    for point in differences["points"]:
        found = point["metrics"][metric]
        cells = (
            estimate(found, "difference"),
            number(found["p"]),
            number(found["p_holm"]),
            Cell(str(len(point["seeds"]))),
        )
        rows.append(((point["name"],), cells))
    title = f"{heading} of {differences['model']}: difference from {differences['reference']}"
    return Block(title, ("point", heading, "p", "Holm p", "seeds"), tuple(rows))


def _headings(metrics: list[str], *, with_sd: bool) -> tuple[str, ...]:
    parts = ("", " SD") if with_sd else ("",)
    return tuple(f"{METRIC_HEADINGS[metric]}{part}" for metric in metrics for part in parts)


def _cells(
    measures: Mapping[str, Mapping[str, Any]], metrics: list[str], *, with_sd: bool
) -> Iterator[Cell]:
    for metric in metrics:
        yield estimate(measures[metric], "mean")
        if with_sd:
            yield number(measures[metric]["sd"])


def _costs(summary: Mapping[str, Any], point: Mapping[str, Any]) -> tuple[Cell, ...]:
    planned, done = len(summary["seeds"]), len(point["seeds"])
    told = point["privacy"] or {"unit": "none" if done else None}
    seconds = point["seconds"]
    return (
        *(Cell(_told_privacy(told, key)) for key in _PRIVACY_HEADINGS),
        Cell(str(done) if done == planned else f"{done} of {planned}"),
        Cell("-" if seconds is None else f"{seconds:.0f}"),
    )


def _told_privacy(told: Mapping[str, Any], key: str) -> str:
    of_share = told.get("share_epsilon")
    if key != "epsilon" or of_share is None:
        return _written(told.get(key))
    return f"{_written(told.get(key))} / {_written(of_share)}"


def _written(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else _one_line(str(value))


def _state(summary: Mapping[str, Any], point: Mapping[str, Any]) -> str:
    states = [run["state"] for run in summary["runs"] if run["point"] == point["name"]]
    return "failed" if "failed" in states else "missing"


def _one_line(text: str) -> str:
    # A bar would end the cell of a Markdown table.
    return " ".join(text.split()).replace("|", "\\|")
