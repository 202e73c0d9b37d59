"""The results of an evaluation in words: blocks of rows and cells, before any layout."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

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

Label = tuple[str, ...]
"""A row's name in parts that may stand on lines of their own: a model, or two to compare."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A number, and its interval where it has one."""

    value: str
    low: str = ""
    high: str = ""

    @property
    def interval(self) -> str:
        """``[low, high]``, or nothing."""
        return f"[{self.low}, {self.high}]" if self.low else ""


@dataclass(frozen=True, slots=True)
class Block:
    """One table in words."""

    title: str
    headings: tuple[str, ...]
    """Of the rows' names, then of their cells."""
    rows: tuple[tuple[Label, tuple[Cell, ...]], ...]


def overall(results: Mapping[str, Any]) -> Iterator[Block]:
    """Yield the metrics over all clients, and the differences from the first model."""
    yield metrics_block(results, f"All clients: {counted(results)}")
    if results["paired"]:
        yield _paired_block(results, "Paired differences, all clients")


def in_parts(results: Mapping[str, Any]) -> Iterator[Block]:
    """Yield the same for every part of the clients."""
    for _, title, part in parts(results):
        yield metrics_block(part, title)
        if part["paired"]:
            yield _paired_block(part, f"Paired differences, {title[0].lower()}{title[1:]}")


def parts(results: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Yield name, title and numbers of the parts that hold anybody."""
    for name, title in (("seen", "Clients seen in training"), ("unseen", "Unseen clients")):
        if results[name]["clients"]:
            yield name, f"{title}: {counted(results[name])}", results[name]
    yield "macro", "Macro: mean over clients of each client's own value", results["macro"]


def metrics_block(part: Mapping[str, Any], title: str) -> Block:
    """Return every metric of every model."""
    rows = tuple(
        ((name,), tuple(estimate(metrics[key], "value") for key in METRIC_HEADINGS))
        for name, metrics in part["models"].items()
    )
    return Block(title, ("model", *METRIC_HEADINGS.values()), rows)


def list_block(results: Mapping[str, Any]) -> Block:
    """Return what every model's lists are like."""
    rows = tuple(
        (
            (name,),
            tuple(
                number(measures[key], "+" if key == "popularity_lift" else "")
                for key in _LIST_HEADINGS
            ),
        )
        for name, measures in results["beyond_accuracy"].items()
    )
    title = "Beyond accuracy: the lists of all clients"
    return Block(title, ("model", *_LIST_HEADINGS.values()), rows)


def spread_blocks(results: Mapping[str, Any]) -> Iterator[Block]:
    """Yield how every model's metrics are distributed over clients."""
    metrics: dict[str, None] = {}
    for of_model in results["deciles"].values():
        metrics.update(dict.fromkeys(of_model))
    for metric in metrics:
        rows = tuple(
            ((name,), tuple(number(of_model[metric][key]) for key in _SPREAD_HEADINGS))
            for name, of_model in results["deciles"].items()
        )
        title = f"Spread over clients of each client's own {METRIC_HEADINGS[metric]}"
        yield Block(title, ("model", *_SPREAD_HEADINGS.values()), rows)


def counted(part: Mapping[str, Any]) -> str:
    """Return how many clients and queries stand behind some numbers."""
    clients, queries = part["clients"], part["queries"]
    return (
        f"{clients:,} {'client' if clients == 1 else 'clients'}, "
        f"{queries:,} {'query' if queries == 1 else 'queries'}"
    )


def _paired_block(part: Mapping[str, Any], title: str) -> Block:
    first, *others = part["models"]
    rows = tuple(
        (
            (first, f"- {other}"),
            tuple(
                estimate(part["paired"][f"{first}-{other}"][key], "difference")
                for key in METRIC_HEADINGS
            ),
        )
        for other in others
    )
    return Block(title, ("difference", *METRIC_HEADINGS.values()), rows)


def estimate(found: Mapping[str, float | None], key: str) -> Cell:
    """Return the number under a key with its interval; a ``difference`` always has a sign."""
    value = number(found[key], "+" if key == "difference" else "").value
    if found["low"] is None or found["high"] is None:
        return Cell(value)
    return Cell(value, number(found["low"]).value, number(found["high"]).value)


def number(value: float | None, sign: str = "") -> Cell:
    """Write four digits after the point and none before it that say nothing: ``.0943``."""
    if value is None:
        return Cell("n/a")
    # Adding 0.0 turns the minus of a rounded zero into nothing.
    text = f"{round(value, 4) + 0.0:{sign}.4f}"
    return Cell(text.replace("0.", ".", 1) if abs(value) < 0.99995 else text)
