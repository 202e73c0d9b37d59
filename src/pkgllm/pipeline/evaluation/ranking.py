"""Rank held-out likes with a run's models and what they are compared with, and write it down."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pkgllm.baselines.likes import TrainingLikes
from pkgllm.config import schema
from pkgllm.corpora.population import Population
from pkgllm.evaluation.protocol import evaluate
from pkgllm.evaluation.results import EvaluationResults
from pkgllm.evaluation.scorer import ClientQueries, Scorer
from pkgllm.pipeline.evaluation.scorers import Ranked, language_models
from pkgllm.pipeline.privacy.statement import privacy_statement
from pkgllm.privacy.statements import read_guarantee
from pkgllm.progress import Progress
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


@dataclass(frozen=True, slots=True)
class Task:
    """What is asked, and of which models."""

    config: schema.AnyExperiment
    run: Path
    """The folder of the run whose models are asked."""
    population: Population
    queries: Sequence[ClientQueries]
    """Audited."""
    liked: Sequence[Collection[str]]
    """Items that each training client likes, in the facts that it trains on."""
    models: tuple[Scorer, ...]
    """Of the run: first the trained one, which all others are compared with."""
    training_notes: tuple[str, ...] = ()
    """What a reader must know of who trained on what."""
    model_notes: tuple[str, ...] = ()
    """What a reader must know of what the models are shown, and of their scores."""

    @property
    def title(self) -> str:
        """What was trained, in short."""
        return run_title(self.config)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know of data, task, models and privacy."""
        return (
            *data_notes(self.population),
            *self.training_notes,
            task_note(self.config, self.population, self.queries),
            *self.model_notes,
            *run_notes(self.config, self.run),
        )


def language_model_task(
    config: schema.Experiment,
    ranked: Ranked,
    population: Population,
    queries: Sequence[ClientQueries],
    *,
    liked: Sequence[Collection[str]],
    facts_left_out: int,
    training_notes: tuple[str, ...],
) -> Task:
    """Return the task of ranking the language models of a run.

    Raises:
        ModelError: If the base model cannot be ranked, or memory does not suffice.
    """
    return Task(
        config,
        ranked.run,
        population,
        queries,
        liked,
        language_models(config, ranked, population),
        training_notes,
        (_prompt_note(config, queries, facts_left_out), *score_notes(config.evaluation)),
    )


def rank(task: Task, progress: Progress) -> EvaluationResults:
    """Rank every query with every model."""
    catalogue = task.population.corpus.catalogue
    likes = TrainingLikes.within(catalogue, task.liked)
    seed = task.config.seed
    simple = [choice.fit(likes, seed=seed) for choice in task.config.evaluation.baselines]
    with progress.track("ranking", len(task.queries)) as advance:
        return evaluate(
            (*task.models, *simple),
            task.queries,
            catalogue,
            resamples=task.config.evaluation.bootstrap_resamples,
            seed=seed,
            training_likes=likes.counts.astype(float),
            on_client=lambda client: advance(),
        )


def write_ranks(task: Task, evaluation: EvaluationResults, output: RunFolder) -> Report:
    """Write predictions, results and table of a ranking."""
    results = evaluation.results()
    lines = (json.dumps(row, ensure_ascii=False) for row in evaluation.predictions())
    output.write_text("predictions.jsonl", "".join(f"{line}\n" for line in lines))
    guarantee = read_guarantee(task.run)
    privacy = asdict(guarantee) if guarantee else None
    report = Report(output.path, "results", results, task.title, task.notes)
    output.write_text("results.md", markdown(report.document))
    # Last, since it says that the run is finished.
    output.write_json("results.json", {**results, "privacy": privacy, "notes": task.notes})
    return report


def read_ranks(run: RunFolder, *, title: str) -> Report:
    """Return the report that :func:`write_ranks` left in a run folder.

    Raises:
        RunError: If it cannot be read.
    """
    results = read_object(run.results)
    return Report(run.path, "results", results, title, tuple(results.get("notes", ())))


def run_title(config: schema.AnyExperiment) -> str:
    """Return what was trained, in short."""
    if isinstance(config, schema.EmbeddingExperiment):
        return f"{config.embedding.name}, {config.mode.name}"
    return f"{config.objective.name}, {config.mode.name}, {config.base_model.name}"


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
    return tuple(notes)


def task_note(
    config: schema.AnyExperiment, population: Population, queries: Sequence[ClientQueries]
) -> str:
    """Return a note on what is asked, and of how many clients."""
    return (
        f"Task: each client's {config.evaluation.part} likes, asked for from strictly earlier "
        "facts, among the whole catalogue without what those facts hold; ranked for "
        f"{len(queries)} of {len(population.splits)} clients."
    )


def _prompt_note(
    config: schema.Experiment, queries: Sequence[ClientQueries], facts_left_out: int
) -> str:
    shown = sum(len(query.graph.facts) for query in queries)
    return (
        f"Prompts: {config.prompt.form}, at most {config.prompt.max_tokens} tokens; "
        f"{facts_left_out} of {shown} visible facts did not fit."
    )


def score_notes(choice: schema.Evaluation) -> tuple[str, ...]:
    """Return a note on the language models' score where it is not the usual one."""
    if choice.score == "sum":
        return ()
    return (f"Score of the language models: {choice.score}, not the log-probability itself.",)


def run_notes(config: schema.AnyExperiment, run: Path | None = None) -> tuple[str, ...]:
    """Return notes on privacy and on whose the data are."""
    notes = [privacy_statement(config, read_guarantee(run) if run else None)]
    if config.corpus.credit:
        notes.append(config.corpus.credit)
    return tuple(notes)
