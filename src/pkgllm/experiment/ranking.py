"""Rank held-out likes with a run's model and what it is compared with, and write it down."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pkgllm.config import schema
from pkgllm.evaluation.protocol import evaluate
from pkgllm.evaluation.results import Evaluation
from pkgllm.evaluation.scorer import ClientQueries
from pkgllm.experiment.assembly import Population
from pkgllm.experiment.privacy_run import read_guarantee
from pkgllm.experiment.privacy_statement import privacy_statement
from pkgllm.experiment.run_record import read_json
from pkgllm.experiment.scorers import Ranked, make_scorers, training_likes
from pkgllm.progress import Progress
from pkgllm.report.tables import markdown_table
from pkgllm.runs import RunFolder


@dataclass(frozen=True, slots=True)
class Report:
    """Where an evaluation was written, and what it found."""

    folder: Path
    name: Literal["results", "lists", "legacy"]
    """Of its files in the folder, without their endings."""
    results: Mapping[str, Any]
    title: str
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Task:
    """What is asked, and of which models."""

    config: schema.Experiment
    ranked: Ranked
    population: Population
    queries: Sequence[ClientQueries]
    """Audited."""
    facts_left_out: int
    """Facts that did not fit into the prompts."""
    layout_notes: tuple[str, ...] = ()
    """What a reader must know of who trained on what."""

    @property
    def title(self) -> str:
        """What was trained, in short."""
        return run_title(self.config)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know of data, task, prompts and privacy."""
        return (
            *data_notes(self.population),
            *self.layout_notes,
            task_note(self.config, self.population, self.queries),
            _prompt_note(self.config, self.queries, self.facts_left_out),
            *score_notes(self.config.evaluation),
            *run_notes(self.config, self.ranked.run),
        )


def rank(task: Task, progress: Progress) -> Evaluation:
    """Rank every query with every model.

    Args:
        task: What is asked.
        progress: Is told how far the work is.
    """
    catalogue = task.population.corpus.catalogue
    likes = training_likes(task.ranked, catalogue)
    scorers = make_scorers(task.config, task.ranked, task.population, likes)
    with progress.track("ranking", len(task.queries)) as advance:
        return evaluate(
            scorers,
            task.queries,
            catalogue,
            resamples=task.config.evaluation.bootstrap_resamples,
            seed=task.config.seed,
            training_likes=likes.counts.astype(float),
            on_client=lambda client: advance(),
        )


def write_ranks(task: Task, evaluation: Evaluation, output: RunFolder) -> Report:
    """Write predictions, results and table of a ranking.

    Args:
        task: What was asked.
        evaluation: The ranks.
        output: Where the files go.
    """
    results = evaluation.results()
    lines = (json.dumps(row, ensure_ascii=False) for row in evaluation.predictions())
    output.write_text("predictions.jsonl", "".join(f"{line}\n" for line in lines))
    guarantee = read_guarantee(task.ranked.run)
    promised = asdict(guarantee) if guarantee else None
    output.write_text("results.md", markdown_table(results, title=task.title, notes=task.notes))
    # Last, since it says that the run is finished.
    output.write_json("results.json", {**results, "privacy": promised, "notes": task.notes})
    return Report(output.path, "results", results, task.title, task.notes)


def read_ranks(run: RunFolder, *, title: str) -> Report:
    """Return the report that :func:`write_ranks` left in a run folder.

    Raises:
        RunError: If it cannot be read.
    """
    results = read_json(run.results)
    return Report(run.path, "results", results, title, tuple(results.get("notes", ())))


def run_title(config: schema.Experiment) -> str:
    """Return what was trained, in short."""
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
    config: schema.Experiment, population: Population, queries: Sequence[ClientQueries]
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


def run_notes(config: schema.Experiment, run: Path | None = None) -> tuple[str, ...]:
    """Return notes on privacy and on whose the data are."""
    notes = [privacy_statement(config, read_guarantee(run) if run else None)]
    if config.corpus.name == "redial":
        notes.append(
            "ReDial: Li et al. 2018, arXiv:1812.07617, CC BY 4.0; the dialogues of the given "
            "files, which may be a part, since one without a worker id belongs to no client."
        )
    return tuple(notes)
