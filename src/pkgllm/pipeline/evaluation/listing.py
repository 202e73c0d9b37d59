"""Let a run's language models write lists, score them, and write it down.

Beside the honest scores stand, where they are asked for by name, those of the published way and the
published leak: see :mod:`pkgllm.evaluation.lists.legacy` for what inflates them. They are never a
result, and nothing here writes them into the files of another protocol.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pkgllm.config import schema
from pkgllm.corpora.population import Population
from pkgllm.errors import RunError
from pkgllm.evaluation.lists.asker import ListAsker
from pkgllm.evaluation.lists.legacy import legacy_results
from pkgllm.evaluation.lists.results import Lists, json_lines, list_results, ranked_lists
from pkgllm.evaluation.results import EvaluationResults
from pkgllm.evaluation.scorer import ClientQueries
from pkgllm.pipeline.evaluation.ranking import (
    Report,
    Task,
    data_notes,
    run_notes,
    run_title,
    task_note,
)
from pkgllm.pipeline.evaluation.scorers import Ranked, own_adapter
from pkgllm.progress import Progress
from pkgllm.prompts.prompts import Prompt
from pkgllm.report.to_markdown import markdown
from pkgllm.runs.folder import RunFolder
from pkgllm.runs.records import Mode

ANSWERS = "lists.jsonl"
LEAKY_SAMPLES: Mapping[Mode, int] = {"greedy": 1, "sampled": 1}
"""What is asked for where the prompts hold the answers."""


def list_asker(
    config: schema.Experiment,
    ranked: Ranked,
    population: Population,
    queries: Sequence[ClientQueries],
    prompts: Sequence[Prompt],
) -> ListAsker:
    """Return what asks the models of a run for lists.

    In mode ``local`` it takes the adapter that strangers get from the model as it stands, so it
    must be made before anything is ranked or asked for.

    Args:
        config: The run's configuration.
        ranked: The models.
        population: The clients.
        queries: What is asked, audited.
        prompts: What the models read, one for each query.

    Raises:
        ConfigError: If the longest answer does not fit behind the longest prompt.
    """
    return ListAsker(
        ranked.policy,
        ranked.writer,
        population.corpus.catalogue,
        queries,
        prompts,
        config.evaluation.lists,
        max_positions=ranked.base.max_positions,
        seed=config.seed,
        with_base=config.evaluation.base_model,
        select=own_adapter(ranked, population) if isinstance(config.mode, schema.Local) else None,
    )


def write_lists(
    task: Task,
    asker: ListAsker,
    evaluation: EvaluationResults,
    output: RunFolder,
    progress: Progress,
) -> Report:
    """Ask for lists in every mode, and write lists, results and table.

    The best candidates of the models' ranks stand beside.
    """
    choice = task.config.evaluation
    samples: dict[Mode, int] = {"greedy": 1, "constrained": 1, "sampled": choice.lists.samples}
    lists: Lists = {**asker.ask(samples, progress), **ranked_lists(evaluation, k=choice.lists.k)}
    results = list_results(
        lists,
        task.queries,
        k=choice.lists.k,
        resamples=choice.bootstrap_resamples,
        seed=task.config.seed,
    )
    output.write_text("lists.jsonl", json_lines(lists))
    output.write_json("lists.json", {**results, "notes": task.notes})
    report = Report(output.path, "lists", results, f"Lists: {task.title}", task.notes)
    output.write_text("lists.md", markdown(report.document))
    return report


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


def write_legacy(
    config: schema.Experiment,
    population: Population,
    queries: Sequence[ClientQueries],
    lists: Lists,
    output: RunFolder,
    *,
    leaky: bool,
) -> Report:
    """Score answers both ways, and write numbers, table and, of leaky prompts, the answers."""
    scores = legacy_results(
        population.corpus.catalogue,
        queries,
        lists,
        k=config.evaluation.lists.k,
        resamples=config.evaluation.bootstrap_resamples,
        seed=config.seed,
    )
    results = {"inflated_numbers_no_result": True, "answers_in_prompts": leaky, **scores}
    title = (
        f"INFLATED, no result, because {'the prompts hold the answers, ' if leaky else ''}answers "
        f"without a list are left out and parts of titles match: {run_title(config)}"
    )
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
