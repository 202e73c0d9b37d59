"""The results of a ranking as a document.

Differences stand against the first model only; the results hold those of every pair.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any

from pkgllm.report.document import (
    Cell,
    Document,
    Row,
    Table,
    columns,
    counted,
    estimate,
    number,
    texts,
)

METRIC_HEADINGS = {
    "hits@1": "Hits@1",
    "hits@3": "Hits@3",
    "hits@10": "Hits@10",
    "hits@50": "Hits@50",
    "mrr": "MRR",
    "adjusted_mrr": "adj.MRR",
    "ndcg@10": "nDCG@10",
}
_LIST_HEADINGS = {
    "coverage": "catalogue coverage",
    "tail_coverage": "tail coverage",
    "tail_share": "tail share",
    "novelty": "novelty (bits)",
    "diversity": "genre diversity",
    "exposure_gini": "exposure Gini",
    "popularity_lift": "popularity lift",
}
_SPREAD_HEADINGS = {
    "p10": "10 %",
    "p25": "25 %",
    "p50": "median",
    "p75": "75 %",
    "p90": "90 %",
    "worst_decile": "mean of worst tenth",
    "sd": "SD",
}


def ranking_document(
    results: Mapping[str, Any], *, title: str, notes: Sequence[str] = ()
) -> Document:
    """Return the tables of ``EvaluationResults.results()``: all clients, then parts of them.

    A terminal shows the parts in one table without intervals.
    """
    in_parts = [table for _, heading, part in _parts(results) for table in _tables(part, heading)]
    blocks = (
        *overall_tables(results),
        *(Table(t.title, t.columns, t.rows, place="page") for t in in_parts),
        _short_table(results),
    )
    return Document(title, blocks, (*notes, *_remarks(results)))


def overall_document(results: Mapping[str, Any], *, title: str) -> Document:
    """Return the results over all clients, and the notes that they hold."""
    notes = (*results.get("notes", ()), *_remarks(results))
    return Document(title, tuple(overall_tables(results)), notes)


def overall_tables(results: Mapping[str, Any]) -> Iterator[Table]:
    """Yield metrics, differences, properties of the lists and spread of all clients."""
    yield from _tables(results, f"All clients: {counted(results)}", "all clients")
    rows = tuple(
        (
            Cell(name),
            *(
                number(measures[key], "+" if key == "popularity_lift" else "")
                for key in _LIST_HEADINGS
            ),
        )
        for name, measures in results["beyond_accuracy"].items()
    )
    title = "Beyond accuracy: the lists of all clients"
    yield Table(title, columns("model", *_LIST_HEADINGS.values()), rows, compact=True)
    for metric in dict.fromkeys(m for by_metric in results["deciles"].values() for m in by_metric):
        rows = tuple(
            (Cell(name), *(number(by_metric[metric][key]) for key in _SPREAD_HEADINGS))
            for name, by_metric in results["deciles"].items()
        )
        title = f"Spread over clients of each client's own {METRIC_HEADINGS[metric]}"
        yield Table(title, columns("model", *_SPREAD_HEADINGS.values()), rows, place="page")


def ranking_rows(results: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield every estimate: clients, model, metric, value and both ends of its interval."""
    parts = {"all": results, **{name: part for name, _, part in _parts(results)}}
    for clients, part in parts.items():
        for model, metrics in part["models"].items():
            for metric, measured in metrics.items():
                yield {"clients": clients, "model": model, "metric": metric, **measured}


def _parts(results: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Yield name, heading and numbers of each part that has a client."""
    for name, heading in (("seen", "Clients seen in training"), ("unseen", "Unseen clients")):
        if results[name]["clients"]:
            yield name, f"{heading}: {counted(results[name])}", results[name]
    yield "macro", "Macro: mean over clients of each client's own value", results["macro"]


def _tables(part: Mapping[str, Any], heading: str, clients: str = "") -> Iterator[Table]:
    """Yield every metric of every model, and the differences from the first one."""
    rows = tuple(
        (Cell(name), *(estimate(metrics[key], "value") for key in METRIC_HEADINGS))
        for name, metrics in part["models"].items()
    )
    yield Table(heading, columns("model", *METRIC_HEADINGS.values()), rows)
    if not part["paired"]:
        return
    first, *others = part["models"]
    rows = tuple(
        (
            Cell(f"{first}\n- {other}"),
            *(
                estimate(part["paired"][f"{first}-{other}"][key], "difference")
                for key in METRIC_HEADINGS
            ),
        )
        for other in others
    )
    title = f"Paired differences, {clients or heading[0].lower() + heading[1:]}"
    yield Table(title, columns("difference", *METRIC_HEADINGS.values()), rows)


def _short_table(results: Mapping[str, Any]) -> Table:
    """Return the values of every part below each other, an empty row between two parts."""
    headings = ("clients", "model", *METRIC_HEADINGS.values())
    rows: list[Row] = []
    for name, _, part in _parts(results):
        beside = counted(part).split(", ") if name != "macro" else ["mean of the", "clients' own"]
        values = [
            (Cell(model), *(number(metrics[key]["value"]) for key in METRIC_HEADINGS))
            for model, metrics in part["models"].items()
        ]
        if rows:
            rows.append(texts(*[""] * len(headings)))
        empty = texts(*[""] * (len(headings) - 1))
        for first, row in zip_longest((name, *beside), values, fillvalue=None):
            rows.append((Cell(first or ""), *(row or empty)))
    return Table("In parts, without intervals", columns(*headings), tuple(rows), place="terminal")


def _remarks(results: Mapping[str, Any]) -> Iterator[str]:
    if results["clients"] == 1:
        yield "One client only, so no interval can be given."
    else:
        yield "[low, high]: 95 % cluster bootstrap interval by client."
    yield "adj.MRR: 0 for a random order, 1 when every held-out item stands first."
    yield (
        "Beyond accuracy: the 10 best items of every client, an empty list where a model failed; "
        "the tail is what stands outside the fewest items that hold 80 % of the training likes."
    )
    for name, count in results["failures"].items():
        if count:
            yield (
                f"{name}: no score for {count} of {results['clients']} clients, whose queries all "
                "count as misses."
            )
    for name, tie in results["ties"].items():
        if tie > 0:
            yield (
                f"{name}: scores tie; an item shares its rank with {tie:.2f} others on average, "
                "and ranks are the mean of best and worst."
            )
