"""A table of many models under one protocol, as a document."""

from collections.abc import Iterator, Mapping
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
from pkgllm.report.ranking import METRIC_HEADINGS

_HEADINGS = {
    "precision@10": "P@10",
    "recall@10": "R@10",
    "hits@1": "Hits@1",
    "hits@3": "Hits@3",
    "hits@10": "Hits@10",
    "mrr": "MRR",
}
_BEYOND_HEADINGS = {
    "coverage": "catalogue coverage",
    "tail_coverage": "tail coverage",
    "tail_share": "tail share",
    "novelty": "novelty (bits)",
    "diversity": "genre diversity",
}


def model_table_document(results: Mapping[str, Any]) -> Document:
    """Return values, differences, properties of the lists, published values and settings."""
    done = sum(row["metrics"] is not None for row in results["rows"])
    title = f"{results['title']}: {done} of {len(results['rows'])} rows"
    blocks = [_values_table(results)]
    if results["differences"]:
        blocks.append(_differences_table(results))
    blocks += [_beyond_table(results), _published_table(results), _settings_table(results)]
    differs = (f"{row['name']}: {row['differs']}" for row in results["rows"] if row["differs"])
    return Document(title, tuple(blocks), (*_remarks(results), *results["notes"], *differs))


def _remarks(results: Mapping[str, Any]) -> Iterator[str]:
    seeds = results["seeds"]
    yield (
        f"{counted(results)}, of seed {seeds[0]}. All rows rank the whole catalogue for the same "
        "queries; nobody's answer is left out, a failure is a miss."
    )
    yield (
        "P@10 and R@10: of every client's 10 best candidates, over all clients; Hits and MRR: of "
        "every held-out like, with the client's other ones filtered."
    )
    yield "[low, high]: 95 % cluster bootstrap interval by client."
    if len(seeds) > 1:
        yield (
            f"Values are means over the seeds {', '.join(map(str, seeds))}; the interval takes a "
            "client's queries of all seeds together; SD over seeds, with n - 1 below."
        )
    if results["differences"]:
        yield (
            f"Differences are a row minus {results['reference']}. p: two-sided paired permutation "
            "test by client. Holm p: corrected over the rows, in each metric."
        )
    for row in results["rows"]:
        if row["failures"]:
            yield (
                f"{row['name']}: no score for {row['failures']} clients, whose queries all count "
                "as misses."
            )


def _values_table(results: Mapping[str, Any]) -> Table:
    with_sd = any(len(row["seeds"]) > 1 for row in results["rows"])
    parts = ("", " SD") if with_sd else ("",)
    headings = [f"{heading}{part}" for heading in _HEADINGS.values() for part in parts]

    def cells(row: Mapping[str, Any]) -> Iterator[Cell]:
        if row["metrics"] is None:
            yield from texts(_one_line(row["reason"]), *[""] * (len(headings) - 1))
            return
        for metric in _HEADINGS:
            yield estimate(row["metrics"][metric], "value")
            if with_sd:
                yield number(row["metrics"][metric]["sd"])

    rows = tuple((Cell(row["name"]), *cells(row)) for row in results["rows"])
    return Table("Every row", columns("row", *headings), rows)


def _differences_table(results: Mapping[str, Any]) -> Table:
    def cells(row: Mapping[str, Any]) -> Iterator[Cell]:
        for of in row["metrics"].values():
            yield estimate(of, "difference")
            yield number(of["p"])
            yield number(of["p_holm"])

    metrics = results["differences"][0]["metrics"]
    headings = [h for metric in metrics for h in (METRIC_HEADINGS[metric], "p", "Holm p")]
    rows = tuple((Cell(row["name"]), *cells(row)) for row in results["differences"])
    return Table(f"Difference from {results['reference']}", columns("row", *headings), rows)


def _beyond_table(results: Mapping[str, Any]) -> Table:
    rows = tuple(
        (Cell(row["name"]), *(number(row["beyond"][key]) for key in _BEYOND_HEADINGS))
        for row in results["rows"]
        if row["beyond"] is not None
    )
    title = "Long tail: the 10 best candidates of all clients"
    return Table(title, columns("row", *_BEYOND_HEADINGS.values()), rows, compact=True)


def _published_table(results: Mapping[str, Any]) -> Table:
    rows = []
    for row in results["rows"]:
        published = row["published"]
        if published:
            values = (number(published[m]) if m in published else Cell("-") for m in _HEADINGS)
            rows.append((Cell(row["name"]), *values))
    title = f"Published, under another protocol: {results['published_in']}"
    return Table(title, columns("row", *_HEADINGS.values()), tuple(rows), place="page")


def _settings_table(results: Mapping[str, Any]) -> Table:
    headings = ("row", "configuration", "settings", "tried: MRR on validation", "chosen")
    return Table("Settings", columns(*headings), tuple(map(_settings, results["rows"])))


def _settings(row: Mapping[str, Any]) -> Row:
    tried = "; ".join(f"{label}: {number(mrr).text}" for label, mrr in row["tried"].items())
    if row["grid"] and not row["tried"]:
        tried = f"none yet, of {', '.join(row['grid'])}"
    elif row["set_when_tuning"]:
        tried = f"{tried}; with {_one_line(' '.join(row['set_when_tuning']))}"
    return texts(
        row["name"],
        row["config"] if row["of"] is None else f"run of {row['of']}",
        _one_line(" ".join(row["settings"])) or "-",
        tried or "nothing to choose",
        _one_line(" ".join(row["grid"].get(row["winner"], ()))) or "-",
    )


def _one_line(text: str) -> str:
    return " ".join(text.split())
