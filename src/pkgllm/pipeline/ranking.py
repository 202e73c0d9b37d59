"""The models that a run is ranked with, the ranking itself, and what a reader must know of it."""

from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path

from peft import PeftModel

from pkgllm.baselines.likes import TrainingLikes
from pkgllm.config import schema
from pkgllm.corpora.population import Population
from pkgllm.errors import ConfigError
from pkgllm.evaluation.per_client import PerClientScorer
from pkgllm.evaluation.protocol import evaluate
from pkgllm.evaluation.ranking.adjusted_scores import adjusted
from pkgllm.evaluation.ranking.branches import SlotMemory
from pkgllm.evaluation.ranking.language_model import GIBIBYTE, LanguageModelScorer
from pkgllm.evaluation.ranking.trie import make_trie
from pkgllm.evaluation.results import EvaluationResults
from pkgllm.evaluation.scorer import ClientQueries, Scorer
from pkgllm.evaluation.validation import Validation
from pkgllm.lm.adapter import adapter_state, load_adapter_state, read_adapter_state
from pkgllm.lm.base_model import BaseModel
from pkgllm.pipeline.build import audit_queries, make_queries
from pkgllm.pipeline.statement import privacy_statement
from pkgllm.privacy.statements import read_guarantee
from pkgllm.progress import Progress
from pkgllm.prompts.prompts import PromptWriter
from pkgllm.report.evaluation import data_notes, task_note
from pkgllm.runs.folder import client_adapter


def language_models(
    config: schema.Experiment,
    run: Path,
    base: BaseModel,
    policy: PeftModel,
    writer: PromptWriter,
    population: Population,
) -> tuple[Scorer, ...]:
    """Return the tuned model, and the base model that it was where it is asked for.

    ``run`` is the folder that holds the adapters of single clients, where each has its own.

    Raises:
        ModelError: If the base model cannot be ranked, or memory does not suffice.
    """
    trie = make_trie(writer, population.corpus.catalogue)
    memory = SlotMemory()

    def language_model(name: str, *, with_adapter: bool) -> LanguageModelScorer:
        return LanguageModelScorer(
            name,
            policy,
            lambda graph: writer.write(graph).token_ids,
            trie,
            max_positions=base.max_positions,
            longest_prompt=config.prompt.max_tokens,
            memory_budget=int(config.evaluation.memory_gib * GIBIBYTE),
            with_adapter=with_adapter,
            memory=memory,
        )

    tuned, untuned = adjusted(
        language_model("tuned", with_adapter=True),
        language_model("base", with_adapter=False),
        config.evaluation.score,
        num_tokens=trie.depths[trie.terminal_nodes] + 1,
    )
    if isinstance(config.mode, schema.Local):
        tuned = PerClientScorer(tuned, own_adapter(policy, run, population))
    return (tuned, untuned) if config.evaluation.base_model else (tuned,)


def own_adapter(policy: PeftModel, run: Path, population: Population) -> Callable[[str], None]:
    """Return what loads a client's own adapter, and a fresh one for a client that has none."""
    fresh = adapter_state(policy)
    # Another folder's clients may have the ids of those who trained.
    trained = {split.client for split in population.in_training}

    def select(client: str) -> None:
        folder = client_adapter(run, client)
        own = client in trained and folder.is_dir()
        load_adapter_state(policy, read_adapter_state(folder) if own else fresh)

    return select


def make_validation(
    config: schema.Experiment,
    run: Path,
    base: BaseModel,
    policy: PeftModel,
    writer: PromptWriter,
    population: Population,
) -> Validation | None:
    """Return what ranks the validation part, if that is wanted; fail before any training.

    Raises:
        ConfigError: If no client that could be ranked has a validation fact.
        LeakError: If a prompt holds what it asks for.
        DataError: If a query cannot be asked.
        ModelError: If the base model cannot be ranked, or memory does not suffice.
    """
    if not config.observation.evaluate_every:
        return None
    changed = {
        "part": "validation",
        "max_clients": config.observation.max_clients,
        "baselines": (),
    }
    config = config.model_copy(update={"evaluation": config.evaluation.model_copy(update=changed)})
    queries = make_queries(config, population)
    if not queries:
        raise ConfigError(
            "observation.evaluate_every needs validation facts, and split.validation_share "
            f"{config.split.validation_share:g} rounds to none for every client; raise it"
        )
    catalogue = population.corpus.catalogue
    audit_queries(queries, writer, catalogue, "validation")
    return Validation(
        lambda: language_models(config, run, base, policy, writer, population)[0],
        policy,
        queries,
        catalogue,
        resamples=config.evaluation.bootstrap_resamples,
        seed=config.seed,
    )


def rank(
    config: schema.AnyExperiment,
    models: Iterable[Scorer],
    population: Population,
    queries: Sequence[ClientQueries],
    liked: Sequence[Collection[str]],
    progress: Progress,
) -> EvaluationResults:
    """Rank every query with a run's models and with the baselines that its configuration names.

    All are compared with the first model; ``liked`` are the items that each training client likes.
    """
    catalogue, evaluation = population.corpus.catalogue, config.evaluation
    likes = TrainingLikes.within(catalogue, liked)
    baselines = [choice.fit(likes, seed=config.seed) for choice in evaluation.baselines]
    with progress.track("ranking", len(queries)) as advance:
        return evaluate(
            (*models, *baselines),
            queries,
            catalogue,
            resamples=evaluation.bootstrap_resamples,
            seed=config.seed,
            training_likes=likes.counts.astype(float),
            on_client=lambda client: advance(),
        )


def run_title(config: schema.AnyExperiment) -> str:
    """Return what was trained, in short."""
    if isinstance(config, schema.EmbeddingExperiment):
        return f"{config.embedding.name}, {config.mode.name}"
    return f"{config.objective.name}, {config.mode.name}, {config.base_model.name}"


def ranking_notes(
    config: schema.AnyExperiment,
    run: Path,
    population: Population,
    queries: Sequence[ClientQueries],
    *,
    training: Iterable[str],
    models: Iterable[str],
) -> tuple[str, ...]:
    """Return what a reader must know of data, training, task, models and privacy."""
    return (
        *data_notes(population),
        *training,
        task_note(config.evaluation.part, population, queries),
        *models,
        *run_notes(config, run),
    )


def language_model_notes(
    config: schema.Experiment,
    queries: Sequence[ClientQueries],
    facts_left_out: int,
    writer: PromptWriter,
) -> tuple[str, ...]:
    """Return notes on what the models read, and on their score where it is not the usual one."""
    shown = sum(len(query.graph.facts) for query in queries)
    prompts = (
        f"Prompts: {config.prompt.form}, at most {config.prompt.max_tokens} tokens; "
        f"{facts_left_out} of {shown} visible facts did not fit."
    )
    notes = (prompts, *writer.template.notes)
    score = config.evaluation.score
    if score == "sum":
        return notes
    return (*notes, f"Score of the language models: {score}, not the log-probability itself.")


def run_notes(config: schema.AnyExperiment, run: Path | None = None) -> tuple[str, ...]:
    """Return notes on privacy and on whose the data are."""
    notes = [privacy_statement(config, read_guarantee(run) if run else None)]
    if config.corpus.credit:
        notes.append(config.corpus.credit)
    return tuple(notes)
