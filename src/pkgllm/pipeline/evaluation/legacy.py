"""The published way to score, and the published leak, beside honest numbers of the same answers.

Never a result: see :mod:`pkgllm.evaluation.legacy` for what inflates them. Nothing here runs
unless it is asked for by its name, and nothing here writes into the files of another protocol.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from pkgllm.config import schema
from pkgllm.corpora.catalogue import Catalogue
from pkgllm.corpora.population import Population
from pkgllm.errors import RunError
from pkgllm.evaluation.legacy import LegacyScore, leaky_graph, legacy_score
from pkgllm.evaluation.lists.lists import list_of_items
from pkgllm.evaluation.scorer import ClientQueries
from pkgllm.files import cannot
from pkgllm.pipeline.evaluation.list_results import ClientList, Lists, Mode, Samples, list_results
from pkgllm.pipeline.evaluation.listing import json_lines
from pkgllm.pipeline.evaluation.ranking import Report, data_notes, run_notes, run_title, task_note
from pkgllm.prompts.prompts import Prompt, PromptWriter
from pkgllm.report.to_markdown import markdown
from pkgllm.runs.folder import RunFolder

ANSWERS = "lists.jsonl"
LEAKY_SAMPLES: Mapping[Mode, int] = {"greedy": 1, "sampled": 1}
"""What is asked for where the prompts hold the answers."""

_WHY = "answers without a list are left out and parts of titles match"
_AGAIN = "run pkgllm evaluate --protocol lists again"


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
    for number, line in enumerate(_text(path).splitlines(), start=1):
        place = f"{path}: line {number}"
        row = _row(line, place)
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
            raise RunError(f"{place}: client {row.client!r} stands twice in a sample; {_AGAIN}")
        sample[row.client] = row.read(query, k)
    for (model, mode), samples in found.items():
        for sample in samples.values():
            if missing := sorted(by_client.keys() - sample.keys()):
                raise RunError(
                    f"{path}: {len(missing)} of {len(queries)} clients have no answer of {model}, "
                    f"{mode}, one is {missing[0]!r}; {_AGAIN}"
                )
    if not found:
        raise RunError(f"{path}: must hold written answers, has none; {_AGAIN}")
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
    :func:`pkgllm.pipeline.evaluation.list_results.list_results` returns.
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


@dataclass(frozen=True, slots=True)
class _Row:
    client: str
    model: str
    mode: Mode
    sample: int
    text: str | None
    finished: bool
    failed: bool
    num_lines: int
    linked: tuple[str, ...]

    def read(self, query: ClientQueries, k: int) -> ClientList:
        if self.failed:
            return ClientList.failure(self.client)
        found = list_of_items(self.linked, visible=query.graph.tails, k=k, num_lines=self.num_lines)
        return ClientList(self.client, self.text, self.finished, failed=False, found=found)


def _row(line: str, place: str) -> _Row:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise RunError(f"{place}: must be JSON, but {error}; {_AGAIN}") from error
    match record:
        case {
            "client": str(client),
            "model": str(model),
            "mode": mode,
            "sample": int(sample),
            "text": str() | None as text,
            "finished": bool(finished),
            "failed": bool(failed),
            "lines": int(num_lines),
            "linked": [*linked],
        } if (
            mode in get_args(Mode)
            and all(isinstance(item, str) for item in linked)
            and num_lines >= len(linked)
            and (text is not None or failed or mode == "ranked")
        ):
            return _Row(
                client, model, mode, sample, text, finished, failed, num_lines, tuple(linked)
            )
        case _:
            raise RunError(
                f"{place}: must hold client, model, mode, sample, text, finished, failed, lines "
                f"and linked, as written by --protocol lists; {_AGAIN}"
            )


def _in_order(
    samples: Mapping[int, Mapping[str, ClientList]], queries: Sequence[ClientQueries]
) -> Samples:
    return [[samples[number][query.client] for query in queries] for number in sorted(samples)]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RunError(f"{path}: must be text in UTF-8, got other bytes; {_AGAIN}") from error
    except OSError as error:
        raise cannot("read", path, error) from error
