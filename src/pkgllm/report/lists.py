"""Results of generated lists as tables: for the terminal (rich) and as Markdown.

What share of the answers can be scored at all stands before every precision.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.table import Table

from pkgllm.report.blocks import Block, Label, counted, estimate, number
from pkgllm.report.tables import estimate_table, markdown_section, plain_table

_RATES = {
    "answer_rate": "answer rate",
    "validity_rate": "validity rate",
    "novelty_rate": "novelty rate",
    "mean_length": "mean length",
}
_MEASURES = {"precision": "precision", "recall": "recall", "f1": "F1"}
_ON_NONEMPTY = {"precision_on_nonempty": "precision if not empty"}


def list_tables(results: Mapping[str, Any], *, width: int) -> Iterator[Table]:
    """Yield the tables of generated lists for a terminal.

    Args:
        results: As made by ``pkgllm.pipeline.evaluation.list_results.list_results``.
        width: Columns of the terminal; where it is too narrow, the ends of an interval stand below
            each other.
    """
    for block in estimate_blocks(results):
        yield estimate_table(block, width)
    for block in _sample_blocks(results):
        yield plain_table(block)


def list_remarks(results: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what a reader must know beside the numbers: modes, intervals, failures."""
    found = [
        "Every query counts: what is held out of a client with an empty list is missed.",
        "greedy, sampled: free text, one title a line; a line counts where it names one item of "
        f"the catalogue. constrained: up to {results['k']} titles, nothing else can be written. "
        "ranked: the best candidates of the exact ranking, for comparison.",
        "[low, high]: 95 % cluster bootstrap interval by client, all samples of a client together."
        if results["clients"] > 1
        else "One client only, so no interval can be given.",
    ]
    if _sampled(results):
        found.append(
            "SD over samples: how much drawing anew changes a value, with n - 1 below; an interval "
            "tells of the clients alone."
        )
    for name, entry in _rows(results):
        answers = entry["samples"] * results["clients"]
        if entry["failures"]:
            found.append(
                f"{', '.join(name)}: no list in {entry['failures']} of {answers} cases, which all "
                "count as empty lists."
            )
        if entry["cut_off"]:
            found.append(
                f"{', '.join(name)}: {entry['cut_off']} of {answers} answers were cut off at their "
                "longest length; what stands before the cut counts."
            )
    return tuple(found)


def markdown_lists(results: Mapping[str, Any], *, title: str, notes: Sequence[str] = ()) -> str:
    """Return the tables of generated lists as one Markdown section.

    Args:
        results: As made by ``pkgllm.pipeline.evaluation.list_results.list_results``.
        title: The section's heading.
        notes: Lines for the list at its end, before the remarks.
    """
    blocks = (*estimate_blocks(results), *_sample_blocks(results))
    return markdown_section(title, blocks, (*notes, *list_remarks(results)))


def estimate_blocks(results: Mapping[str, Any]) -> Iterator[Block]:
    """Yield rates first, then precision, recall and F1, micro and macro, with intervals."""
    k = results["k"]
    yield _block(results, "rates", f"What was answered: {counted(results)}", _RATES)
    at_k = {f"{name}@{k}": f"{heading}@{k}" for name, heading in _MEASURES.items()}
    yield _block(results, "micro", "Micro: the lists of all clients together", at_k)
    extra = {f"{name}@{k}": heading for name, heading in _ON_NONEMPTY.items()}
    yield _block(results, "macro", "Macro: mean over clients of each client's own", at_k | extra)


def _block(results: Mapping[str, Any], part: str, title: str, headings: Mapping[str, str]) -> Block:
    rows = tuple(
        (name, tuple(estimate(entry[part][key], "value") for key in headings))
        for name, entry in _rows(results)
    )
    return Block(title, ("model", *headings.values()), rows)


def _sample_blocks(results: Mapping[str, Any]) -> Iterator[Block]:
    sampled = _sampled(results)
    if not sampled:
        return
    k = results["k"]
    columns = [("rates", key, heading) for key, heading in _RATES.items()]
    columns += [
        (part, f"{key}@{k}", f"{part} {heading}@{k}")
        for part in ("micro", "macro")
        for key, heading in {"precision": "P", "recall": "R", "f1": "F1"}.items()
    ]
    rows = tuple(
        (
            (model, "mean" if key == "mean" else "SD"),
            tuple(number(over[part][name][key]) for part, name, _ in columns),
        )
        for model, over in sampled.items()
        for key in ("mean", "sd")
    )
    num_samples = max(entry["samples"] for _, entry in _rows(results))
    plural = "" if num_samples == 1 else "s"
    title = f"Sampled lists: mean and SD over {num_samples} sample{plural}"
    yield Block(title, ("model", *(heading for _, _, heading in columns)), rows)


def _sampled(results: Mapping[str, Any]) -> dict[str, Any]:
    return {
        model: modes["sampled"]["over_samples"]
        for model, modes in results["models"].items()
        if "sampled" in modes
    }


def _rows(results: Mapping[str, Any]) -> Iterator[tuple[Label, Mapping[str, Any]]]:
    """Yield model and mode with their numbers: written lists first, then ranked ones."""
    rows = [
        ((model, mode), entry)
        for model, modes in results["models"].items()
        for mode, entry in modes.items()
    ]
    yield from sorted(rows, key=lambda row: row[0][1] == "ranked")
