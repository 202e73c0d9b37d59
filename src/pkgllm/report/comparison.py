"""A comparison of runs as tables: for the terminal (rich) and as Markdown."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table

from pkgllm.report.blocks import (
    METRIC_HEADINGS,
    Block,
    Cell,
    Label,
    counted,
    estimate,
    number,
)
from pkgllm.report.tables import estimate_table, markdown_section


def comparison_tables(results: Mapping[str, Any], *, width: int) -> Iterator[Table]:
    """Yield the tables of a comparison for a terminal.

    Args:
        results: As made by ``pkgllm.pipeline.evaluation.comparison.compare``.
        width: Columns of the terminal; where it is too narrow, the ends of an interval stand below
            each other.
    """
    for block in _blocks(results):
        yield estimate_table(block, width)


def comparison_title(results: Mapping[str, Any]) -> str:
    """Return what is compared, as a heading.

    Example:
        >>> comparison_title({"runs": [{"name": "fedkto"}, {"name": "feddpo"}]})
        'Comparison of fedkto, feddpo'
    """
    return f"Comparison of {', '.join(run['name'] for run in results['runs'])}"


def comparison_remarks(results: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what a reader must know beside the numbers: intervals, p-values, seeds, failures."""
    draws = results["permutations"]
    signs = (
        f"in each of the {draws:,} ways"
        if draws == 2 ** results["clients"]
        else f"at random {draws:,} times"
    )
    found = [
        f"[low, high]: 95 % cluster bootstrap interval by client, "
        f"{results['bootstrap_resamples']:,} resamples; not corrected for the number of "
        "differences."
        if results["clients"] > 1
        else "One client only, so no interval can be given."
    ]
    if results["differences"]:
        found.append(
            "p: two-sided paired permutation test; the sign of each client's difference, summed "
            f"over its queries, is flipped {signs}. Holm p: corrected over all differences in the "
            "metric."
        )
    if results["settings"]:
        found.append(
            "SD over seeds: how much training anew changes a value, with n - 1 below; an interval "
            "tells of the clients alone."
        )
    found += [
        f"{model['name']}: no score for {model['failures']} of {results['clients']} clients, whose "
        "queries all count as misses."
        for model in results["models"]
        if model["failures"]
    ]
    return (*found, *results["notes"])


def markdown_comparison(results: Mapping[str, Any]) -> str:
    """Return the tables of a comparison as one Markdown section.

    Args:
        results: As made by ``pkgllm.pipeline.evaluation.comparison.compare``.
    """
    return markdown_section(
        comparison_title(results), _blocks(results), comparison_remarks(results)
    )


def _blocks(results: Mapping[str, Any]) -> Iterator[Block]:
    headings = {metric: METRIC_HEADINGS[metric] for metric in results["metrics"]}
    yield Block(
        f"All clients: {counted(results)}",
        ("model", *headings.values()),
        tuple(
            (
                _label(model),
                tuple(estimate(model["metrics"][metric], "value") for metric in headings),
            )
            for model in results["models"]
        ),
    )
    if results["settings"]:
        yield _seeds_block(results, headings)
    if results["differences"]:
        for metric, heading in headings.items():
            yield _differences_block(results, metric, heading)


def _label(model: Mapping[str, Any]) -> Label:
    if model["name"] == model["model"]:
        return (model["name"],)
    return (model["name"].removesuffix(f" {model['model']}"), model["model"])


def _seeds_block(results: Mapping[str, Any], headings: Mapping[str, str]) -> Block:
    rows = []
    for setting in results["settings"]:
        *others, last = setting["runs"]
        for model, metrics in setting["models"].items():
            label = (*(f"{name}," for name in others), f"{last}:", model)
            cells = [
                Cell(number(metrics[metric][key]).value)
                for metric in headings
                for key in ("mean", "sd")
            ]
            rows.append((label, tuple(cells)))
    columns = [f"{heading}{key}" for heading in headings.values() for key in ("", " SD")]
    return Block("Mean and SD over seeds", ("setting", *columns), tuple(rows))


def _differences_block(results: Mapping[str, Any], metric: str, heading: str) -> Block:
    rows = []
    for pair in results["differences"]:
        found = pair["metrics"][metric]
        cells = (estimate(found, "difference"), number(found["p"]), number(found["p_holm"]))
        rows.append(((pair["first"], f"- {pair['second']}"), cells))
    count = len(rows)
    title = f"{heading}: {count} paired {'difference' if count == 1 else 'differences'}"
    return Block(title, ("difference", heading, "p", "Holm p"), tuple(rows))
