"""The published way to score, and the published leak, beside honest numbers of the same answers.

Never a result: see :mod:`pkgllm.evaluation.legacy` for what inflates them. Nothing here runs
unless it is asked for by its name, and nothing here writes into the files of another protocol.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pkgllm.config import schema
from pkgllm.corpora.catalogue import Catalogue
from pkgllm.errors import RunError
from pkgllm.evaluation.legacy import LegacyScore, leaky_graph, legacy_score
from pkgllm.evaluation.lists.lists import list_of_items
from pkgllm.evaluation.lists.results import ClientList, Lists, Samples, list_results
from pkgllm.evaluation.scorer import ClientQueries
from pkgllm.pipeline.build import Population
from pkgllm.pipeline.evaluation.listing import json_lines
from pkgllm.pipeline.evaluation.ranking import Report, data_notes, run_notes, run_title, task_note
from pkgllm.prompts.prompts import Prompt, PromptWriter
from pkgllm.report.to_markdown import markdown
from pkgllm.runs.folder import RunFolder
from pkgllm.runs.records import ListRecord, Mode, read_records

ANSWERS = "lists.jsonl"
LEAKY_SAMPLES: Mapping[Mode, int] = {"greedy": 1, "sampled": 1}
"""What is asked for where the prompts hold the answers."""

_WHY = "answers without a list are left out and parts of titles match"


def newest_answers(run: Path) -> Path:
    """Return the lists of the evaluation of a run with the highest number.

    Raises:
        RunError: If there are none.
    """
    places = [path for path in run.glob(f"evaluations/*/{ANSWERS}") if path.parent.name.isdecimal()]
    if not places:
        raise RunError(
            f"{run / 'evaluations'}: no evaluation holds {ANSWERS}, the answers to score; run "
            "pkgllm evaluate --protocol lists first, or name a file with --answers"
        )
    return max(places, key=lambda path: int(path.parent.name))


def read_answers(path: Path, queries: Sequence[ClientQueries], *, k: int) -> Lists:
    """Read the written lists of an evaluation; ranked ones are passed over.

    Args:
        path: A file that :func:`pkgllm.pipeline.evaluation.listing.write_lists` wrote.
        queries: What was asked.
        k: Longest list.

    Returns:
        One list for each query in every sample, in the order of the queries.

    Raises:
        RunError: If the file cannot be read, is damaged, or does not answer just these queries.
    """
    by_client = {query.client: query for query in queries}
    found: dict[tuple[str, Mode], dict[int, dict[str, ClientList]]] = {}
    for place, row in read_records(path, ListRecord):
        if row.mode == "ranked":
            continue
        query = by_client.get(row.client)
        if query is None:
            raise RunError(
                f"{place}: client {row.client!r} is none of those that are asked now; name the "
                "people that the answers were written for with --data, as then"
            )
        sample = found.setdefault((row.model, row.mode), {}).setdefault(row.sample, {})
        if row.client in sample:
            raise RunError(
                f"{place}: client {row.client!r} stands twice in a sample; {ListRecord.advice}"
            )
        sample[row.client] = _read(row, query, k)
    for (model, mode), samples in found.items():
        for sample in samples.values():
            if missing := sorted(by_client.keys() - sample.keys()):
                raise RunError(
                    f"{path}: {len(missing)} of {len(queries)} clients have no answer of {model}, "
                    f"{mode}, one is {missing[0]!r}; {ListRecord.advice}"
                )
    if not found:
        raise RunError(f"{path}: must hold written answers, has none; {ListRecord.advice}")
    return {key: _in_order(samples, queries) for key, samples in found.items()}


def leaky_prompts(
    population: Population,
    queries: Sequence[ClientQueries],
    writer: PromptWriter,
    part: Literal["test", "validation"],
) -> list[Prompt]:
    """Return prompts that hold their answers, as the published code stored them.

    They are never audited, because the audit would rightly refuse them.
    """
    held_out = {split.client: split.held_out(part) for split in population.splits}
    return [writer.write(leaky_graph(query.graph, held_out[query.client])) for query in queries]


def legacy_results(
    config: schema.Experiment,
    catalogue: Catalogue,
    queries: Sequence[ClientQueries],
    lists: Lists,
) -> dict[str, Any]:
    """Return inflated and honest numbers of the same answers, ready for JSON.

    ``inflated.<model>.<mode>`` holds what :class:`pkgllm.evaluation.legacy.LegacyScore` does, over
    all samples; ``honest`` what
    :func:`pkgllm.evaluation.lists.results.list_results` returns.
    """
    goals = [[catalogue[item].name for item in query.held_out] for query in queries]
    inflated: dict[str, Any] = {}
    for (model, mode), samples in lists.items():
        # The published code left out what was cut off; our models are asked for bare titles.
        answers = [
            (names, client.text if client.text and client.finished else "")
            for sample in samples
            for names, client in zip(goals, sample, strict=True)
        ]
        score = legacy_score(answers, bullets_only=False)
        inflated.setdefault(model, {})[mode] = _numbers(score)
    choice = config.evaluation
    honest = list_results(
        lists,
        queries,
        k=choice.lists.k,
        resamples=choice.bootstrap_resamples,
        seed=config.seed,
    )
    return {"inflated": inflated, "honest": honest}


def write_legacy(
    config: schema.Experiment,
    population: Population,
    queries: Sequence[ClientQueries],
    lists: Lists,
    output: RunFolder,
    *,
    leaky: bool,
) -> Report:
    """Score answers both ways, and write numbers, table and, of leaky prompts, the answers.

    Args:
        config: The run's configuration.
        population: The clients.
        queries: What was asked.
        lists: The answers.
        output: Where the files go.
        leaky: Whether the prompts held the answers.
    """
    found = legacy_results(config, population.corpus.catalogue, queries, lists)
    results = {"inflated_numbers_no_result": True, "answers_in_prompts": leaky, **found}
    why = f"{'the prompts hold the answers, ' if leaky else ''}{_WHY}"
    title = f"INFLATED, no result, because {why}: {run_title(config)}"
    task = _leaky_note(config, queries) if leaky else task_note(config, population, queries)
    notes = (*data_notes(population), task, *run_notes(config))
    if leaky:
        # Under a name of its own, so that it is never taken for answers to honest prompts.
        output.write_text("legacy.jsonl", json_lines(lists))
    output.write_json("legacy.json", {**results, "title": title, "notes": notes})
    report = Report(output.path, "legacy", results, title, notes)
    output.write_text("legacy.md", markdown(report.document))
    return report


def _leaky_note(config: schema.Experiment, queries: Sequence[ClientQueries]) -> str:
    return (
        f"Task: none; each prompt holds the client's {config.evaluation.part} likes that are asked "
        f"for, as the published data did; {len(queries)} clients."
    )


def _numbers(score: LegacyScore) -> dict[str, int | float]:
    return {
        "answers": score.num_answers,
        "scored": score.num_scored,
        "lines": score.num_lines,
        "goals": score.num_goals,
        "true_positives": score.true_positives,
        "precision": score.precision,
        "recall": score.recall,
        "f1": score.f1,
        "mrr": score.mrr,
        "hits@1": score.hits_at(1),
        "hits@3": score.hits_at(3),
        "hits@10": score.hits_at(10),
    }


def _read(record: ListRecord, query: ClientQueries, k: int) -> ClientList:
    if record.failed:
        return ClientList.failure(record.client)
    items = list_of_items(record.linked, visible=query.graph.tails, k=k, num_lines=record.lines)
    return ClientList(record.client, record.text, record.finished, failed=False, found=items)


def _in_order(
    samples: Mapping[int, Mapping[str, ClientList]], queries: Sequence[ClientQueries]
) -> Samples:
    return [[samples[number][query.client] for query in queries] for number in sorted(samples)]
