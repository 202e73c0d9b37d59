"""The run of a knowledge graph embedding: trained, kept, ranked, and gone on with."""

import logging
from collections.abc import Sequence
from pathlib import Path

from pkgllm.config.load import dump_config
from pkgllm.config.schema import EmbeddingExperiment
from pkgllm.corpora.population import Population
from pkgllm.errors import StoppedError
from pkgllm.evaluation.scorer import ClientQueries
from pkgllm.interrupts import after_this_round
from pkgllm.kge.files import load_embeddings, save_embeddings
from pkgllm.kge.pykeen_door import Model
from pkgllm.kge.training import TrainingSetup, train_embeddings
from pkgllm.pipeline.build import populate, read_corpus
from pkgllm.pipeline.embeddings.assembly import (
    EmbeddingPlan,
    Trained,
    embedding_queries,
    embedding_task,
    plan_embedding,
)
from pkgllm.pipeline.embeddings.federated import load_federated, train_federated
from pkgllm.pipeline.embeddings.journal import EMBEDDING, Diary, make_stages
from pkgllm.pipeline.evaluation.ranking import Report, Task, rank, write_ranks
from pkgllm.pipeline.run_record import (
    check_same_data,
    read_liked,
    run_provenance,
    write_record,
)
from pkgllm.progress import Progress
from pkgllm.runs.folder import RunFolder

logger = logging.getLogger(__name__)


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
        check_same_data(run, population, None)
    return _go_on(run, plan, population, queries, progress, keep)


def evaluation_task(
    run: RunFolder, config: EmbeddingExperiment, trained_on: Population, asked: Population | None
) -> tuple[Task, EmbeddingPlan]:
    """Return the task of asking a finished run's embedding again.

    Args:
        run: The run folder.
        config: Its configuration, with what was set over ``evaluation``.
        trained_on: The run's own clients, whose graph the embedding was trained on.
        asked: Other people of the same catalogue; the run's own clients when absent.

    Raises:
        DataError: If an item to rank has no vector.
        ModelError: If the embedding cannot be read, or is not of these data.
    """
    plan = plan_embedding(config, trained_on)
    model = _load(run, plan)
    population = trained_on if asked is None else asked
    queries = embedding_queries(config, population, everybody=asked is not None)
    liked = read_liked(run.path)
    return embedding_task(plan, model, run.path, population, queries, liked=liked), plan


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
    model = _load(run, plan) if trained else _train(run, plan, progress, keep)
    liked = population.liked_in_training()
    task = embedding_task(plan, model, run.path, population, queries, liked=liked)
    return write_ranks(task, rank(task, progress), run)


def _load(run: RunFolder, plan: EmbeddingPlan) -> Trained:
    if plan.federation is not None:
        return load_federated(run, plan)
    return load_embeddings(
        run.path / EMBEDDING,
        plan.config.embedding,
        plan.graph.triples,
        seed=plan.config.seed,
        device=plan.device,
    )


def _train(run: RunFolder, plan: EmbeddingPlan, progress: Progress, keep: int) -> Trained:
    if plan.federation is not None:
        return train_federated(run, plan, progress, keep=keep)
    return _train_centralized(run, plan, progress, keep)


def _train_centralized(run: RunFolder, plan: EmbeddingPlan, progress: Progress, keep: int) -> Model:
    config, triples = plan.config, plan.graph.triples
    stages = make_stages(run)
    epochs = {name: schedule.epochs for name, schedule in config.embedding.schedules.items()}

    def tell() -> None:
        logger.warning("stopping after this epoch; once more stops at once")

    with (
        run.occupied(),
        after_this_round(tell) as stop_asked,
        progress.track("training", sum(epochs.values())) as advance,
    ):
        diary = Diary(run, epochs, advance)
        setup = TrainingSetup(
            seed=config.seed,
            device=str(plan.device),
            folder=stages,
            checkpoint_every=config.training.checkpoint_every,
            keep=keep,
            on_stage=diary.begin,
            on_epoch=lambda epoch: diary.add(
                {"stage": epoch.stage, "epoch": epoch.number}, {"loss": epoch.loss}
            ),
            stop_asked=stop_asked,
        )
        try:
            model = train_embeddings(plan.config.embedding, triples, setup)
        except StoppedError as error:
            raise StoppedError(
                f"stopped after a checkpoint; go on with: pkgllm train --resume {run.path}"
            ) from error
        save_embeddings(
            model, run.path / EMBEDDING, plan.config.embedding, triples, seed=config.seed
        )
    return model
