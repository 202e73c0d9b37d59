"""A comparison of runs as a document."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pkgllm.errors import ConfigError, RunError
from pkgllm.files import write_atomically
from pkgllm.report.document import Cell, Document, Table, columns, counted, estimate, number, plural
from pkgllm.report.ranking import METRIC_HEADINGS
from pkgllm.report.to_markdown import markdown


def comparison_document(results: Mapping[str, Any]) -> Document:
    """Return the tables of what :func:`pkgllm.evaluation.comparison.compare_runs` returned."""
    title = f"Comparison of {', '.join(run['name'] for run in results['runs'])}"
    return Document(title, tuple(_tables(results)), (*_remarks(results), *results["notes"]))


def check_output(path: Path) -> None:
    """Raise, before any work, where a comparison cannot be written to a file of this name.

    Raises:
        ConfigError: If the name ends in neither ``.md`` nor ``.json``.
        RunError: If something is there already.
    """
    if path.suffix not in {".md", ".json"}:
        raise ConfigError(f"--output {path}: must end in .md or .json, got {path.suffix!r}")
    if path.exists():
        raise RunError(f"--output {path}: must be a new file, and exists; choose another name")


def write_comparison(results: Mapping[str, Any], path: Path) -> None:
    """Write a comparison as Markdown or JSON, whichever the file's name ends in.

    Raises:
        RunError: If the file cannot be written.
    """
    if path.suffix == ".json":
        text = json.dumps(results, ensure_ascii=False, allow_nan=False, indent=2) + "\n"
    else:
        text = markdown(comparison_document(results))
    write_atomically(path, text)


def _remarks(results: Mapping[str, Any]) -> Iterator[str]:
    """Yield how intervals and p-values are computed, and failures."""
    if results["clients"] > 1:
        yield (
            f"[low, high]: 95 % cluster bootstrap interval by client, "
            f"{results['bootstrap_resamples']:,} resamples; not corrected for the number of "
            "differences."
        )
    else:
        yield "One client only, so no interval can be given."
    if results["differences"]:
        draws = results["permutations"]
        exact = draws == 2 ** results["clients"]
        signs = f"in each of the {draws:,} ways" if exact else f"at random {draws:,} times"
        yield (
            "p: two-sided paired permutation test; the sign of each client's difference, summed "
            f"over its queries, is flipped {signs}. Holm p: corrected over all differences in the "
            "metric."
        )
    if results["settings"]:
        yield (
            "SD over seeds: how much training anew changes a value, with n - 1 below; an interval "
            "covers the choice of clients alone."
        )
    for model in results["models"]:
        if model["failures"]:
            yield (
                f"{model['name']}: no score for {model['failures']} of {results['clients']} "
                "clients, whose queries all count as misses."
            )


def _tables(results: Mapping[str, Any]) -> Iterator[Table]:
    headings = {metric: METRIC_HEADINGS[metric] for metric in results["metrics"]}
    rows = tuple(
        (_name(model), *(estimate(model["metrics"][metric], "value") for metric in headings))
        for model in results["models"]
    )
    yield Table(f"All clients: {counted(results)}", columns("model", *headings.values()), rows)
    if results["settings"]:
        yield _seeds_table(results, headings)
    if results["differences"]:
        for metric, heading in headings.items():
            yield _differences_table(results, metric, heading)


def _name(model: Mapping[str, Any]) -> Cell:
    if model["name"] == model["model"]:
        return Cell(model["name"])
    run = model["name"].removesuffix(f" {model['model']}")
    return Cell(f"{run}\n{model['model']}")


def _seeds_table(results: Mapping[str, Any], headings: Mapping[str, str]) -> Table:
    rows = []
    for setting in results["settings"]:
        names = ",\n".join(setting["runs"])
        for model, metrics in setting["models"].items():
            values = (number(metrics[m][key]) for m in headings for key in ("mean", "sd"))
            rows.append((Cell(f"{names}:\n{model}"), *values))
    with_sd = (f"{heading}{key}" for heading in headings.values() for key in ("", " SD"))
    return Table("Mean and SD over seeds", columns("setting", *with_sd), tuple(rows))


def _differences_table(results: Mapping[str, Any], metric: str, heading: str) -> Table:
    rows = []
    for pair in results["differences"]:
        of = pair["metrics"][metric]
        names = Cell(f"{pair['first']}\n- {pair['second']}")
        rows.append((names, estimate(of, "difference"), number(of["p"]), number(of["p_holm"])))
    title = f"{heading}: {plural(len(rows), 'paired difference')}"
    return Table(title, columns("difference", heading, "p", "Holm p"), tuple(rows))
