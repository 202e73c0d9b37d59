"""Results of generated lists as documents: scored honestly, and as published evaluations did.

What share of the answers can be scored at all stands before every precision.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pkgllm.report.document import (
    Cell,
    Document,
    Table,
    columns,
    counted,
    estimate,
    number,
    plural,
)

_RATES = {
    "answer_rate": "answer rate",
    "validity_rate": "validity rate",
    "novelty_rate": "novelty rate",
    "mean_length": "mean length",
}
_MEASURES = {"precision": "precision", "recall": "recall", "f1": "F1"}
_INFLATED = {
    **_MEASURES,
    "mrr": "MRR",
    "hits@1": "Hits@1",
    "hits@3": "Hits@3",
    "hits@10": "Hits@10",
}


def lists_document(
    results: Mapping[str, Any], *, title: str, notes: Sequence[str] = ()
) -> Document:
    """Return the tables of what :func:`pkgllm.evaluation.lists.results.list_results` returned."""
    blocks = (*_estimates(results), *_over_samples(results))
    return Document(title, blocks, (*notes, *_remarks(results)))


def legacy_document(
    results: Mapping[str, Any], *, title: str, notes: Sequence[str] = ()
) -> Document:
    """Return inflated beside honest numbers of what ``legacy_results`` returned."""
    rows = tuple(
        (
            Cell(f"{model}\n{mode}"),
            Cell(f"{scores['scored']:,} of {scores['answers']:,}"),
            *(number(scores[key]) for key in _INFLATED),
        )
        for model, modes in results["inflated"].items()
        for mode, scores in modes.items()
    )
    headings = columns("model", "scored", *_INFLATED.values())
    inflated = Table(
        "INFLATED. The same answers in the published way", headings, rows, compact=True
    )
    honest = (
        Table(f"Honest. {table.title}", table.columns, table.rows)
        for table in _estimates(results["honest"])
    )
    return Document(title, (inflated, *honest), (*_legacy_remarks(results), *notes))


def _remarks(results: Mapping[str, Any]) -> Iterator[str]:
    yield "Every query counts: what is held out of a client with an empty list is missed."
    yield (
        "greedy, sampled: free text, one title a line; a line counts where it names one item of "
        f"the catalogue. constrained: up to {results['k']} titles, nothing else can be written. "
        "ranked: the best candidates of the exact ranking, for comparison."
    )
    if results["clients"] > 1:
        yield (
            "[low, high]: 95 % cluster bootstrap interval by client, all samples of a client "
            "together."
        )
    else:
        yield "One client only, so no interval can be given."
    if _sampled(results):
        yield (
            "SD over samples: how much drawing anew changes a value, with n - 1 below; an interval "
            "covers the choice of clients alone."
        )
    for model, mode, entry in _entries(results):
        answers = entry["samples"] * results["clients"]
        if entry["failures"]:
            yield (
                f"{model}, {mode}: no list in {entry['failures']} of {answers} cases, which all "
                "count as empty lists."
            )
        if entry["cut_off"]:
            yield (
                f"{model}, {mode}: {entry['cut_off']} of {answers} answers were cut off at their "
                "longest length; what stands before the cut counts."
            )


def _legacy_remarks(results: Mapping[str, Any]) -> Iterator[str]:
    yield "These numbers are inflated, and shown only so that the gap to honest ones can be seen."
    yield (
        "Answers without a line, or cut off, leave numerator and denominator alike; only the "
        "scored ones count."
    )
    yield (
        "A title counts without its last word and anywhere in a line, so other films match; a line "
        "that repeats a match counts again, so recall can exceed 1."
    )
    if results["answers_in_prompts"]:
        yield (
            "The prompts held the answers as liked, so copying is enough; the honest scoring of "
            "these answers measures the leak as well."
        )
    honest = results["honest"]
    yield (
        "The same answers, scored honestly: a line counts where it names one item of the "
        f"catalogue, lists are cut to {honest['k']}, and every query counts."
    )
    if honest["clients"] > 1:
        yield "[low, high]: 95 % cluster bootstrap interval by client."


def _estimates(results: Mapping[str, Any]) -> Iterator[Table]:
    """Yield rates first, then precision, recall and F1, micro and macro, with intervals."""
    k = results["k"]
    at_k = {f"{name}@{k}": f"{heading}@{k}" for name, heading in _MEASURES.items()}
    not_empty = {f"precision_on_nonempty@{k}": "precision if not empty"}
    for part, title, headings in (
        ("rates", f"What was answered: {counted(results)}", _RATES),
        ("micro", "Micro: the lists of all clients together", at_k),
        ("macro", "Macro: mean over clients of each client's own", at_k | not_empty),
    ):
        rows = tuple(
            (Cell(f"{model}\n{mode}"), *(estimate(entry[part][key], "value") for key in headings))
            for model, mode, entry in _entries(results)
        )
        yield Table(title, columns("model", *headings.values()), rows)


def _over_samples(results: Mapping[str, Any]) -> Iterator[Table]:
    sampled = _sampled(results)
    if not sampled:
        return
    k = results["k"]
    measures = [("rates", key, heading) for key, heading in _RATES.items()]
    measures += [
        (part, f"{key}@{k}", f"{part} {heading}@{k}")
        for part in ("micro", "macro")
        for key, heading in {"precision": "P", "recall": "R", "f1": "F1"}.items()
    ]
    rows = tuple(
        (Cell(f"{model}\n{name}"), *(number(over[part][of][key]) for part, of, _ in measures))
        for model, over in sampled.items()
        for key, name in (("mean", "mean"), ("sd", "SD"))
    )
    samples = plural(max(entry["samples"] for _, _, entry in _entries(results)), "sample")
    title = f"Sampled lists: mean and SD over {samples}"
    headings = columns("model", *(heading for _, _, heading in measures))
    yield Table(title, headings, rows, compact=True)


def _sampled(results: Mapping[str, Any]) -> dict[str, Any]:
    return {
        model: modes["sampled"]["over_samples"]
        for model, modes in results["models"].items()
        if "sampled" in modes
    }


def _entries(results: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Yield model and mode with their numbers: written lists first, then ranked ones."""
    entries = [
        (model, mode, entry)
        for model, modes in results["models"].items()
        for mode, entry in modes.items()
    ]
    yield from sorted(entries, key=lambda entry: entry[1] == "ranked")
