"""Write down an evaluation: numbers, tables, and the notes that a reader needs with them.

The files of a ranking, of written lists and of the published, inflated scores have names of their
own, so that none is taken for another; see :mod:`pkgllm.evaluation.lists.legacy`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pkgllm.corpora.catalogue import Catalogue
from pkgllm.corpora.population import Population
from pkgllm.evaluation.lists.legacy import legacy_results
from pkgllm.evaluation.lists.results import ANSWERS, Lists, json_lines, list_results
from pkgllm.evaluation.results import EvaluationResults
from pkgllm.evaluation.scorer import ClientQueries
from pkgllm.privacy.statements import Guarantee
from pkgllm.report.document import Document
from pkgllm.report.lists import legacy_document, lists_document
from pkgllm.report.ranking import ranking_document
from pkgllm.report.to_markdown import markdown
from pkgllm.runs.folder import RunFolder
from pkgllm.runs.records import read_object


@dataclass(frozen=True, slots=True)
class Report:
    """The results of an evaluation, and where they were written."""

    folder: Path
    name: Literal["results", "lists", "legacy"]
    """Of its files in the folder, without their endings."""
    results: Mapping[str, Any]
    title: str
    notes: tuple[str, ...]

    @property
    def document(self) -> Document:
        """Its tables."""
        make = {"results": ranking_document, "lists": lists_document, "legacy": legacy_document}
        return make[self.name](self.results, title=self.title, notes=self.notes)


def write_ranks(
    evaluation: EvaluationResults,
    output: RunFolder,
    *,
    title: str,
    notes: tuple[str, ...],
    guarantee: Guarantee | None,
) -> Report:
    """Write predictions, results and table of a ranking, with what the run guarantees."""
    results = evaluation.results()
    lines = (json.dumps(row, ensure_ascii=False) for row in evaluation.predictions())
    output.write_text("predictions.jsonl", "".join(f"{line}\n" for line in lines))
    privacy = asdict(guarantee) if guarantee else None
    report = Report(output.path, "results", results, title, notes)
    output.write_text("results.md", markdown(report.document))
    # Last, since it says that the run is finished.
    output.write_json("results.json", {**results, "privacy": privacy, "notes": notes})
    return report


def read_ranks(run: RunFolder, *, title: str) -> Report:
    """Return the report that :func:`write_ranks` left in a run folder.

    Raises:
        RunError: If it cannot be read.
    """
    results = read_object(run.results)
    return Report(run.path, "results", results, title, tuple(results.get("notes", ())))


def write_lists(
    lists: Lists,
    queries: Sequence[ClientQueries],
    output: RunFolder,
    *,
    k: int,
    resamples: int,
    seed: int,
    title: str,
    notes: tuple[str, ...],
) -> Report:
    """Write lists, their results and their table."""
    results = list_results(lists, queries, k=k, resamples=resamples, seed=seed)
    output.write_text(ANSWERS, json_lines(lists))
    output.write_json("lists.json", {**results, "notes": notes})
    report = Report(output.path, "lists", results, f"Lists: {title}", notes)
    output.write_text("lists.md", markdown(report.document))
    return report


def write_legacy(
    lists: Lists,
    catalogue: Catalogue,
    queries: Sequence[ClientQueries],
    output: RunFolder,
    *,
    k: int,
    resamples: int,
    seed: int,
    title: str,
    notes: tuple[str, ...],
    leaky: bool,
) -> Report:
    """Score answers honestly and in the published way; write numbers, table and leaky answers."""
    scores = legacy_results(catalogue, queries, lists, k=k, resamples=resamples, seed=seed)
    results = {"inflated_numbers_no_result": True, "answers_in_prompts": leaky, **scores}
    title = (
        f"INFLATED, no result, because {'the prompts hold the answers, ' if leaky else ''}answers "
        f"without a list are left out and parts of titles match: {title}"
    )
    if leaky:
        # Under a name of its own, so that it is never taken for answers to honest prompts.
        output.write_text("legacy.jsonl", json_lines(lists))
    output.write_json("legacy.json", {**results, "title": title, "notes": notes})
    report = Report(output.path, "legacy", results, title, notes)
    output.write_text("legacy.md", markdown(report.document))
    return report


def data_notes(population: Population) -> tuple[str, ...]:
    """Return notes on the clients and the catalogue."""
    corpus, left_out = population.corpus, population.left_out
    num_unseen = len(corpus.graphs) - len(population.in_training)
    notes = [
        f"Data: {corpus.name}, {len(corpus.graphs)} clients, {num_unseen} of them unseen in "
        f"training; {len(corpus.catalogue)} items in the catalogue."
    ]
    if left_out.clients:
        notes.append(
            f"Left out: {len(left_out.clients)} clients with fewer than {left_out.min_liked} liked "
            "facts."
        )
    return (*notes, *corpus.notes)


def task_note(part: str, population: Population, queries: Sequence[ClientQueries]) -> str:
    """Return a note on what is asked, and of how many clients."""
    return (
        f"Task: each client's {part} likes, asked for from strictly earlier facts, among the whole "
        f"catalogue without what those facts hold; ranked for {len(queries)} of "
        f"{len(population.splits)} clients."
    )


def leaky_note(part: str, queries: Sequence[ClientQueries]) -> str:
    """Return a note on prompts that hold what they ask for."""
    return (
        f"Task: none; each prompt holds the client's {part} likes that are asked for, as the "
        f"published data did; {len(queries)} clients."
    )
