"""A table of results: for the terminal (rich) and as Markdown."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table

from pkgllm.report.blocks import METRIC_HEADINGS, Block, Cell, Label, counted, estimate, number
from pkgllm.report.tables import estimate_table, markdown_section, plain_table

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

Results = Mapping[str, Any]
"""As made by ``pkgllm.studies.tables.results.table_results``."""


def terminal_results(results: Results, *, width: int) -> Iterator[Table]:
    """Yield the tables for a terminal.

    Args:
        results: What the rows found.
        width: Columns of the terminal; where it is too narrow, the ends of an interval stand below
            each other.
    """
    yield estimate_table(_values_block(results), width)
    if results["differences"]:
        yield estimate_table(_differences_block(results), width)
    yield plain_table(_beyond_block(results))
    yield estimate_table(_settings_block(results), width)


def results_title(results: Results) -> str:
    """Return the table's heading."""
    done = sum(row["metrics"] is not None for row in results["rows"])
    return f"{results['title']}: {done} of {len(results['rows'])} rows"


def results_remarks(results: Results) -> tuple[str, ...]:
    """Return what a reader must know beside the numbers."""
    seeds = results["seeds"]
    found = [
        f"{counted(results)}, of seed {seeds[0]}. All rows rank the whole catalogue for the same "
        "queries; nobody's answer is left out, a failure is a miss.",
        "P@10 and R@10: of every client's 10 best candidates, over all clients; Hits and MRR: of "
        "every held-out like, with the client's other ones filtered.",
        "[low, high]: 95 % cluster bootstrap interval by client.",
    ]
    if len(seeds) > 1:
        found.append(
            f"Values are means over the seeds {', '.join(map(str, seeds))}; the interval takes a "
            "client's queries of all seeds together; SD over seeds, with n - 1 below."
        )
    if results["differences"]:
        found.append(
            f"Differences are a row minus {results['reference']}. p: two-sided paired permutation "
            "test by client. Holm p: corrected over the rows, in each metric."
        )
    found += [
        f"{row['name']}: no score for {row['failures']} clients, whose queries all count as misses."
        for row in results["rows"]
        if row["failures"]
    ]
    return (*found, *results["notes"])


def markdown_results(results: Results) -> str:
    """Return the tables as one Markdown section."""
    blocks = [_values_block(results)]
    if results["differences"]:
        blocks.append(_differences_block(results))
    blocks += [_beyond_block(results), _published_block(results), _settings_block(results)]
    differs = [f"{row['name']}: {row['differs']}" for row in results["rows"] if row["differs"]]
    return markdown_section(results_title(results), blocks, (*results_remarks(results), *differs))


def _values_block(results: Results) -> Block:
    with_sd = any(len(row["seeds"]) > 1 for row in results["rows"])
    headings = tuple(
        f"{heading}{part}"
        for heading in _HEADINGS.values()
        for part in (("", " SD") if with_sd else ("",))
    )
    rows: list[tuple[Label, tuple[Cell, ...]]] = []
    for row in results["rows"]:
        if row["metrics"] is None:
            cells = (Cell(_one_line(row["reason"])), *(Cell("") for _ in headings[1:]))
        else:
            cells = tuple(
                cell
                for metric in _HEADINGS
                for cell in (
                    estimate(row["metrics"][metric], "value"),
                    *((number(row["metrics"][metric]["sd"]),) if with_sd else ()),
                )
            )
        rows.append(((row["name"],), cells))
    return Block("Every row", ("row", *headings), tuple(rows))


def _differences_block(results: Results) -> Block:
    metrics = list(results["differences"][0]["metrics"])
    rows = tuple(
        (
            (row["name"],),
            tuple(
                cell
                for metric in metrics
                for cell in (
                    estimate(row["metrics"][metric], "difference"),
                    number(row["metrics"][metric]["p"]),
                    number(row["metrics"][metric]["p_holm"]),
                )
            ),
        )
        for row in results["differences"]
    )
    headings = tuple(h for metric in metrics for h in (METRIC_HEADINGS[metric], "p", "Holm p"))
    return Block(f"Difference from {results['reference']}", ("row", *headings), rows)


def _beyond_block(results: Results) -> Block:
    rows = tuple(
        ((row["name"],), tuple(number(row["beyond"][key]) for key in _BEYOND_HEADINGS))
        for row in results["rows"]
        if row["beyond"] is not None
    )
    title = "Long tail: the 10 best candidates of all clients"
    return Block(title, ("row", *_BEYOND_HEADINGS.values()), rows)


def _published_block(results: Results) -> Block:
    rows = tuple(
        (
            (row["name"],),
            tuple(
                number(row["published"][metric]) if metric in row["published"] else Cell("-")
                for metric in _HEADINGS
            ),
        )
        for row in results["rows"]
        if row["published"]
    )
    title = f"Published, under another protocol: {results['published_in']}"
    return Block(title, ("row", *_HEADINGS.values()), rows)


def _settings_block(results: Results) -> Block:
    rows = []
    for row in results["rows"]:
        winner = row["winner"]
        tried = "; ".join(f"{label}: {number(mrr).value}" for label, mrr in row["tried"].items())
        if row["grid"] and not row["tried"]:
            tried = f"none yet, of {', '.join(row['grid'])}"
        elif row["set_when_tuning"]:
            tried = f"{tried}; with {_one_line(' '.join(row['set_when_tuning']))}"
        chosen = " ".join(row["grid"].get(winner, ()))
        cells = (
            Cell(row["config"] if row["of"] is None else f"run of {row['of']}"),
            Cell(_one_line(" ".join(row["settings"])) or "-"),
            Cell(tried or "nothing to choose"),
            Cell(_one_line(chosen) or "-"),
        )
        rows.append(((row["name"],), cells))
    headings = ("row", "configuration", "settings", "tried: MRR on validation", "chosen")
    return Block("Settings", headings, tuple(rows))


def _one_line(text: str) -> str:
    # A bar would end the cell of a Markdown table.
    return " ".join(text.split()).replace("|", "\\|")
