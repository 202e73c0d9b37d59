"""The run of a knowledge graph embedding: trained, kept, ranked, and gone on with."""

from collections.abc import Callable, Sequence
from pathlib import Path

from pkgllm.config.load import dump_config
from pkgllm.config.schema import EmbeddingExperiment
from pkgllm.corpora.population import Population
from pkgllm.errors import ModelError
from pkgllm.evaluation.scorer import ClientQueries, Scorer
from pkgllm.federation.rounds import RoundRecord
from pkgllm.kge.federated_embeddings import FederatedEmbeddings, train_federated_embeddings
from pkgllm.kge.federated_stage import FederatedSetup
from pkgllm.kge.files import load_embeddings, save_embeddings, save_server_tables
from pkgllm.kge.pykeen_door import Model
from pkgllm.kge.training import TrainingSetup, train_embeddings
from pkgllm.pipeline.build import populate, read_corpus
from pkgllm.pipeline.embedding_plan import (
    EmbeddingPlan,
    Trained,
    embedding_queries,
    fold_in_note,
    make_scorer,
    plan_embedding,
    training_notes,
)
from pkgllm.pipeline.ranking import rank, ranking_notes, run_title
from pkgllm.pipeline.run_record import (
    check_same_data,
    run_provenance,
    write_record,
)
from pkgllm.privacy.statements import read_guarantee
from pkgllm.progress import Progress
from pkgllm.report.evaluation import Report, write_ranks
from pkgllm.runs.folder import RunFolder
from pkgllm.runs.journal import EMBEDDING, STAGES, journalled

PARTICIPATION = "participation.json"
"""Who took part in how many rounds of each stage."""


def train(config: EmbeddingExperiment, path: Path, progress: Progress, *, keep: int) -> Report:
    """Train and rank; as :func:`pkgllm.pipeline.train.train`, which calls it."""
    run = RunFolder.create(path)
    population = populate(config, read_corpus(config))
    plan = plan_embedding(config, population)
    queries = embedding_queries(config, population)
    run.write_text("config.yaml", dump_config(config))
    return _go_on(run, plan, population, queries, progress, keep)


def resume(run: RunFolder, config: EmbeddingExperiment, progress: Progress, *, keep: int) -> Report:
    """Go on with a run; as :func:`pkgllm.pipeline.train.resume`, which calls it."""
    population = populate(config, read_corpus(config))
    plan = plan_embedding(config, population)
    queries = embedding_queries(config, population)
    if run.provenance.exists():
        check_same_data(run, population)
    return _go_on(run, plan, population, queries, progress, keep)


def _go_on(
    run: RunFolder,
    plan: EmbeddingPlan,
    population: Population,
    queries: Sequence[ClientQueries],
    progress: Progress,
    keep: int,
) -> Report:
    """Do what is left of a run."""
    if not run.provenance.exists():
        made_of = run_provenance(plan.config, population, None, plan.device)
        write_record(run, population, made_of)
    trained = (run.path / EMBEDDING).exists()
    model = load_trained(run, plan) if trained else _train(run, plan, progress, keep)
    scorer = make_scorer(plan, model, population)
    liked = population.liked_in_training()
    return rank_embedding(plan, model, scorer, run.path, run, population, queries, liked, progress)


def rank_embedding(
    plan: EmbeddingPlan,
    trained: Trained,
    scorer: Scorer,
    run: Path,
    output: RunFolder,
    population: Population,
    queries: Sequence[ClientQueries],
    liked: Sequence[Sequence[str]],
    progress: Progress,
) -> Report:
    """Rank the run's own clients, or other people of the same catalogue, and write it down."""
    return write_ranks(
        rank(plan.config, (scorer,), population, queries, liked, progress),
        output,
        title=run_title(plan.config),
        notes=ranking_notes(
            plan.config,
            run,
            population,
            queries,
            training=training_notes(plan, trained),
            models=(fold_in_note(plan, queries),),
        ),
        guarantee=read_guarantee(run),
    )


def load_trained(run: RunFolder, plan: EmbeddingPlan) -> Trained:
    """Return the embedding of a finished run; that of clients from its last checkpoints.

    Raises:
        ModelError: If it cannot be read, or is not of these data.
        RunError: If checkpoints are of other settings, data or another seed.
    """
    if plan.federation is None:
        return load_embeddings(
            run.path / EMBEDDING,
            plan.config.embedding,
            plan.graph.triples,
            seed=plan.config.seed,
            device=plan.device,
        )

    def begin(stage: str, done: int) -> None:
        if done < plan.num_rounds[stage]:
            raise ModelError(
                f"{run.path / STAGES / stage}: must hold the checkpoint of the last round, "
                f"{plan.num_rounds[stage]}, has that of {done}; restore it, or train again"
            )

    return _train_stages(run, plan, 1, begin, lambda stage, record, loss: None, lambda: False)


def _train(run: RunFolder, plan: EmbeddingPlan, progress: Progress, keep: int) -> Trained:
    if plan.federation is not None:
        return _train_federated(run, plan, progress, keep)
    return _train_centralized(run, plan, progress, keep)


def _train_centralized(run: RunFolder, plan: EmbeddingPlan, progress: Progress, keep: int) -> Model:
    config, triples = plan.config, plan.graph.triples
    epochs = {name: schedule.epochs for name, schedule in config.embedding.schedules.items()}
    with journalled(run, epochs, progress, "epoch") as (journal, stop_requested):
        setup = TrainingSetup(
            seed=config.seed,
            device=str(plan.device),
            folder=run.path / STAGES,
            checkpoint_every=config.training.checkpoint_every,
            keep=keep,
            on_stage=journal.begin,
            on_epoch=lambda epoch: journal.add(
                {"stage": epoch.stage, "epoch": epoch.number}, {"loss": epoch.loss}
            ),
            stop_asked=stop_requested,
        )
        model = train_embeddings(config.embedding, triples, setup)
        save_embeddings(model, run.path / EMBEDDING, config.embedding, triples, seed=config.seed)
    return model


def _train_federated(
    run: RunFolder, plan: EmbeddingPlan, progress: Progress, keep: int
) -> FederatedEmbeddings:
    """Train over clients, and write down what the server has and who took part."""
    with journalled(run, plan.num_rounds, progress, "round") as (journal, stop_requested):

        def add(stage: str, record: RoundRecord, loss: float) -> None:
            journal.add(
                {"stage": stage, "round": record.round_num},
                {"cohort": list(record.cohort), "loss": loss},
            )

        trained = _train_stages(run, plan, keep, journal.begin, add, stop_requested)
        run.write_json(
            PARTICIPATION,
            {
                stage: {**took_part.summary(), "rounds": dict(took_part.rounds)}
                for stage, took_part in trained.participation.items()
            },
        )
        save_server_tables(trained, run.path / EMBEDDING)
    return trained


def _train_stages(
    run: RunFolder,
    plan: EmbeddingPlan,
    keep: int,
    on_stage: Callable[[str, int], None],
    on_round: Callable[[str, RoundRecord, float], None],
    stop_requested: Callable[[], bool],
) -> FederatedEmbeddings:
    assert plan.federation is not None, "only a federated plan is trained over clients"
    setup = FederatedSetup(
        seed=plan.config.seed,
        device=str(plan.device),
        folder=run.path / STAGES,
        keep=keep,
        on_stage=on_stage,
        on_round=on_round,
        stop_asked=stop_requested,
    )
    return train_federated_embeddings(plan.config.embedding, plan.graph, plan.federation, setup)
