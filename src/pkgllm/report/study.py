"""A study as a document."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pkgllm.report.document import (
    Cell,
    Document,
    Figure,
    Paragraph,
    Row,
    Table,
    columns,
    estimate,
    number,
    texts,
)
from pkgllm.report.ranking import METRIC_HEADINGS

_COST_HEADINGS = (
    "privacy unit",
    "epsilon",
    "delta",
    "relation",
    "accountant",
    "runs",
    "seconds",
)


def study_document(summary: Mapping[str, Any], plot: str | None = None) -> Document:
    """Return every point's values, privacy and cost, and its differences from the reference.

    In a terminal privacy and cost have a table of their own.
    """
    finished = sum(run["state"] == "finished" for run in summary["runs"])
    title = f"Study {summary['study']}: {finished} of {len(summary['runs'])} runs finished"
    tables = (
        _results_table(summary, with_costs=True),
        _results_table(summary, with_costs=False),
        _costs_table(summary),
        *_further_tables(summary),
    )
    notes = (*_remarks(summary), *summary["notes"])
    if plot is None:
        return Document(title, tables, notes)
    bars = "Bars: one SD over seeds to both sides, or the 95 % interval of a single run."
    figure = (Figure(summary["study"], plot), Paragraph(bars))
    return Document(title, (Document("", tables, notes), *figure))


def _remarks(summary: Mapping[str, Any]) -> Iterator[str]:
    counts = {len(point["seeds"]) for point in summary["points"]}
    privacy = [point["privacy"] for point in summary["points"]]
    if 1 in counts:
        yield "[low, high]: 95 % cluster bootstrap interval by client, of a single run."
    if max(counts) > 1:
        yield "Values of several runs are means over seeds; SD over seeds, with n - 1 below."
    if summary["shared"]:
        yield f"{', '.join(summary['shared'])}: the same wherever ranked, and shown once."
    if all(of is None for of in privacy):
        yield "Privacy: none; no epsilon can be given."
    elif max(counts) > 1:
        yield "Privacy: the largest epsilon and delta of a point's runs."
    if any((of or {}).get("share_epsilon") is not None for of in privacy):
        yield (
            "Epsilon for whoever sees only sums of shares of the noise; after the stroke, for the "
            "server, which sees single shares."
        )
    if summary["differences"] is not None and summary["differences"]["points"]:
        yield (
            "p: two-sided paired permutation test; a client's difference, summed over its queries "
            "and all seeds, changes sign as one. Holm p: corrected over the points, in each metric."
        )


def _results_table(summary: Mapping[str, Any], *, with_costs: bool) -> Table:
    metrics = summary["metrics"]
    with_sd = any(len(point["seeds"]) > 1 for point in summary["points"])
    several = any(len(point["models"]) > 1 for point in summary["points"])
    parts = ("", " SD") if with_sd else ("",)
    headings = [f"{METRIC_HEADINGS[metric]}{part}" for metric in metrics for part in parts]

    def values(measures: Mapping[str, Mapping[str, Any]]) -> Iterator[Cell]:
        for metric in metrics:
            yield estimate(measures[metric], "mean")
            if with_sd:
                yield number(measures[metric]["sd"])

    rows: list[Row] = []
    for point in summary["points"]:
        costs = _costs(summary, point) if with_costs else ()
        if not point["models"]:
            state = texts(*[_state(summary, point)] * len(headings))
            rows.append((Cell(point["name"]), *state, *costs))
        for model, measures in point["models"].items():
            name = f"{point['name']}\n{model}" if several else point["name"]
            rows.append((Cell(name), *values(measures), *costs))
    no_costs = texts(*[""] * len(_COST_HEADINGS)) if with_costs else ()
    for model, measures in summary["shared"].items():
        rows.append((Cell(model), *values(measures), *no_costs))
    return Table(
        "Every point",
        columns("point", *headings, *(_COST_HEADINGS if with_costs else ())),
        tuple(rows),
        place="page" if with_costs else "terminal",
    )


def _costs_table(summary: Mapping[str, Any]) -> Table:
    rows = tuple((Cell(point["name"]), *_costs(summary, point)) for point in summary["points"])
    return Table("Privacy and cost", columns("point", *_COST_HEADINGS), rows, place="terminal")


def _further_tables(summary: Mapping[str, Any]) -> Iterator[Table]:
    differences = summary["differences"]
    if differences is not None and differences["points"]:
        for metric in summary["metrics"]:
            yield _differences_table(differences, metric)
    failed = [run for run in summary["runs"] if run["state"] == "failed"]
    if failed:
        rows = tuple(texts(run["name"], " ".join(run["reason"].split())) for run in failed)
        yield Table("Failed runs", columns("run", "reason"), rows)


def _differences_table(differences: Mapping[str, Any], metric: str) -> Table:
    heading = METRIC_HEADINGS[metric]
    rows = []
    for point in differences["points"]:
        of = point["metrics"][metric]
        p_values = (number(of["p"]), number(of["p_holm"]))
        seeds = Cell(str(len(point["seeds"])))
        rows.append((Cell(point["name"]), estimate(of, "difference"), *p_values, seeds))
    title = f"{heading} of {differences['model']}: difference from {differences['reference']}"
    return Table(title, columns("point", heading, "p", "Holm p", "seeds"), tuple(rows))


def _costs(summary: Mapping[str, Any], point: Mapping[str, Any]) -> Sequence[Cell]:
    planned, done = len(summary["seeds"]), len(point["seeds"])
    privacy = point["privacy"] or {"unit": "none" if done else None}
    seconds = point["seconds"]
    epsilon = _written(privacy.get("epsilon"))
    if privacy.get("share_epsilon") is not None:
        epsilon = f"{epsilon} / {_written(privacy['share_epsilon'])}"
    return texts(
        _written(privacy.get("unit")),
        epsilon,
        *(_written(privacy.get(key)) for key in ("delta", "relation", "accountant")),
        str(done) if done == planned else f"{done} of {planned}",
        "-" if seconds is None else f"{seconds:.0f}",
    )


def _written(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _state(summary: Mapping[str, Any], point: Mapping[str, Any]) -> str:
    states = [run["state"] for run in summary["runs"] if run["point"] == point["name"]]
    return "failed" if "failed" in states else "missing"
