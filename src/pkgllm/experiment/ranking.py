"""Rank held-out likes with a run's model, its untuned base and popularity, and write it down."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft import PeftModel

from pkgllm.baselines.simple import Popularity
from pkgllm.config import schema
from pkgllm.corpora.catalogue import Catalogue
from pkgllm.evaluation.language_model import LanguageModelScorer
from pkgllm.evaluation.per_client import PerClientScorer
from pkgllm.evaluation.protocol import evaluate
from pkgllm.evaluation.scorer import ClientQueries, Scorer
from pkgllm.evaluation.trie import CatalogueTrie
from pkgllm.experiment.assembly import Population
from pkgllm.experiment.modes import client_adapter
from pkgllm.lm.adapter import adapter_state, load_adapter_state, read_adapter_state
from pkgllm.lm.base_model import BaseModel
from pkgllm.preferences.prompts import PromptWriter
from pkgllm.progress import Progress
from pkgllm.report.tables import markdown_table
from pkgllm.runs import RunFolder


@dataclass(frozen=True, slots=True)
class Report:
    """Where an evaluation was written, and what it found."""

    folder: Path
    results: Mapping[str, Any]
    title: str
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Ranked:
    """The models of a run, ready to be ranked."""

    run: Path
    """The folder that holds the adapters."""
    base: BaseModel
    policy: PeftModel
    writer: PromptWriter
    liked: Mapping[str, int]
    """Training clients that like each item."""


def rank(
    config: schema.Experiment,
    ranked: Ranked,
    population: Population,
    queries: Sequence[ClientQueries],
    output: RunFolder,
    progress: Progress,
    *,
    facts_left_out: int,
) -> Report:
    """Rank every query with every model, and write predictions, results and table.

    Args:
        config: The run's configuration.
        ranked: The models.
        population: The clients, for the table's notes.
        queries: What is asked, audited.
        output: Where the files go.
        progress: Is told how far the work is.
        facts_left_out: Facts that did not fit into the prompts.
    """
    catalogue = population.corpus.catalogue
    scorers = _scorers(config, ranked, population)
    with progress.track("ranking", len(queries)) as advance:
        evaluation = evaluate(
            scorers,
            queries,
            catalogue,
            resamples=config.evaluation.bootstrap_resamples,
            seed=config.seed,
            on_client=lambda client: advance(),
        )
    results = evaluation.results()
    title = f"{config.objective.name}, {config.mode.name}, {config.base_model.name}"
    notes = _notes(config, population, queries, facts_left_out)
    lines = (json.dumps(row, ensure_ascii=False) for row in evaluation.predictions())
    output.write_text("predictions.jsonl", "".join(f"{line}\n" for line in lines))
    output.write_json("results.json", {**results, "notes": notes})
    output.write_text("results.md", markdown_table(results, title=title, notes=notes))
    return Report(output.path, results, title, notes)


def _scorers(
    config: schema.Experiment, ranked: Ranked, population: Population
) -> tuple[Scorer, ...]:
    catalogue, base, writer = population.corpus.catalogue, ranked.base, ranked.writer
    trie = CatalogueTrie(
        [writer.completion_ids(name) for name in catalogue.names],
        names=catalogue.names,
        chunk_tokens=config.evaluation.chunk_tokens,
    )

    def language_model(name: str, **more: Any) -> LanguageModelScorer:
        return LanguageModelScorer(
            name,
            ranked.policy,
            lambda graph: writer.write(graph).token_ids,
            trie,
            max_positions=base.max_positions,
            **more,
        )

    tuned: Scorer = language_model("tuned")
    if config.mode.name == "local":
        tuned = PerClientScorer(tuned, _own_adapter(ranked, population))
    return (
        tuned,
        language_model("base", context=ranked.policy.disable_adapter),
        Popularity(catalogue, _likes(ranked.liked, catalogue)),
    )


def _likes(liked: Mapping[str, int], catalogue: Catalogue) -> Iterator[str]:
    """Yield each item once for every client that likes it; another folder may lack some items."""
    return (item for item in Counter(liked).elements() if item in catalogue)


def _own_adapter(ranked: Ranked, population: Population) -> Callable[[str], None]:
    """Return what loads a client's own adapter, and a fresh one for a client that has none."""
    fresh = adapter_state(ranked.policy)
    # Another folder's clients may have the ids of those who trained.
    trained = {split.client for split in population.in_training}

    def select(client: str) -> None:
        folder = client_adapter(ranked.run, client)
        own = client in trained and folder.is_dir()
        load_adapter_state(ranked.policy, read_adapter_state(folder) if own else fresh)

    return select


def _notes(
    config: schema.Experiment,
    population: Population,
    queries: Sequence[ClientQueries],
    facts_left_out: int,
) -> tuple[str, ...]:
    corpus, left_out = population.corpus, population.left_out
    num_unseen = len(corpus.graphs) - len(population.in_training)
    shown = sum(len(query.graph.facts) for query in queries)
    notes = [
        f"Data: {corpus.name}, {len(corpus.graphs)} clients, {num_unseen} of them unseen in "
        f"training; {len(corpus.catalogue)} items in the catalogue.",
        f"Task: each client's {config.evaluation.part} likes, asked for from strictly earlier "
        "facts, among the whole catalogue without what those facts hold; ranked for "
        f"{len(queries)} of {len(population.splits)} clients.",
        f"Prompts: {config.prompt.form}, at most {config.prompt.max_tokens} tokens; "
        f"{facts_left_out} of {shown} visible facts did not fit.",
        _privacy_note(config),
    ]
    if left_out.clients:
        notes.insert(
            1,
            f"Left out: {len(left_out.clients)} clients with fewer than {left_out.min_liked} liked "
            "facts.",
        )
    if config.corpus.name == "redial":
        notes.append(
            "ReDial: Li et al. 2018, arXiv:1812.07617, CC BY 4.0; the dialogues of the given "
            "files, which may be a part, since one without a worker id belongs to no client."
        )
    return tuple(notes)


def _privacy_note(config: schema.Experiment) -> str:
    if config.mode.name != "federated":
        return f"Privacy: none; mode {config.mode.name}."
    leaves = (
        "losses and counts leave the clients, so the run is not private"
        if config.privacy.report_private_metrics
        else "nothing but updates leaves the clients"
    )
    return f"Privacy: none, no epsilon can be given; {leaves}."
