"""The run of a knowledge graph embedding: trained, kept, ranked, and gone on with."""

import logging
import time
from collections.abc import Sequence
from pathlib import Path

from pkgllm.baselines.embedding_files import load_embeddings, save_embeddings
from pkgllm.baselines.embedding_training import Epoch, TrainingSetup, train_embeddings
from pkgllm.baselines.pykeen_door import Model
from pkgllm.checkpoints import Checkpoint, Checkpoints
from pkgllm.config.load import dump_config
from pkgllm.config.schema import EmbeddingExperiment
from pkgllm.errors import StoppedError
from pkgllm.evaluation.scorer import ClientQueries
from pkgllm.experiment.assembly import Population, populate, read_corpus
from pkgllm.experiment.embedding_assembly import (
    EmbeddingPlan,
    embedding_queries,
    embedding_task,
    plan_embedding,
)
from pkgllm.experiment.ranking import Report, Task, rank, write_ranks
from pkgllm.experiment.run_record import (
    LIKED,
    check_same_data,
    read_liked,
    run_provenance,
    write_record,
)
from pkgllm.files import cannot
from pkgllm.interrupts import after_this_round
from pkgllm.progress import Advance, Progress
from pkgllm.runs import RunFolder

logger = logging.getLogger(__name__)

EMBEDDING = "embedding.safetensors"
"""The trained embedding. Private: it holds a row for each training client."""

STAGES = "stages"
"""Folder with the checkpoints of each stage of training."""


def train(config: EmbeddingExperiment, path: Path, progress: Progress, *, keep: int) -> Report:
    """Train and rank; as :func:`pkgllm.experiment.jobs.train`, which calls it."""
    run = RunFolder.create(path)
    population = populate(config, read_corpus(config))
    plan = plan_embedding(config, population)
    queries = embedding_queries(config, population)
    run.write_text("config.yaml", dump_config(config))
    return _go_on(run, plan, population, queries, progress, keep)


def resume(run: RunFolder, config: EmbeddingExperiment, progress: Progress, *, keep: int) -> Report:
    """Go on with a run; as :func:`pkgllm.experiment.jobs.resume`, which calls it."""
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
    liked = read_liked(run.path / LIKED)
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


def _load(run: RunFolder, plan: EmbeddingPlan) -> Model:
    return load_embeddings(
        run.path / EMBEDDING,
        plan.choice,
        plan.graph.triples,
        seed=plan.config.seed,
        device=plan.device,
    )


def _train(run: RunFolder, plan: EmbeddingPlan, progress: Progress, keep: int) -> Model:
    config, triples = plan.config, plan.graph.triples
    stages = run.path / STAGES
    try:
        stages.mkdir(exist_ok=True)
    except OSError as error:
        raise cannot("make", stages, error) from error
    epochs = {name: schedule.epochs for name, schedule in config.embedding.stages.items()}

    def tell() -> None:
        logger.warning("stopping after this epoch; once more stops at once")

    with (
        run.occupied(),
        after_this_round(tell) as stop_asked,
        progress.track("training", sum(epochs.values())) as advance,
    ):
        diary = _Diary(run, epochs, advance)
        setup = TrainingSetup(
            seed=config.seed,
            device=str(plan.device),
            folder=stages,
            checkpoint_every=config.training.checkpoint_every,
            keep=keep,
            on_stage=diary.begin,
            on_epoch=diary.add,
            stop_asked=stop_asked,
        )
        try:
            model = train_embeddings(plan.choice, triples, setup)
        except StoppedError as error:
            raise StoppedError(
                f"stopped after a checkpoint; go on with: pkgllm train --resume {run.path}"
            ) from error
        save_embeddings(model, run.path / EMBEDDING, plan.choice, triples, seed=config.seed)
    return model


class _Diary:
    """Writes down every epoch, and takes back those that are done again.

    Args:
        run: The run folder.
        epochs: Of each stage, in order.
        advance: Is told of every epoch that is done.
    """

    def __init__(self, run: RunFolder, epochs: dict[str, int], advance: Advance) -> None:
        self._run = run
        self._epochs = epochs
        self._advance = advance
        self._since = time.perf_counter()

    def begin(self, stage: str, done: int) -> None:
        """Take back the records of epochs that are done again, in this stage and after it."""
        if done < self._epochs[stage]:
            names = list(self._epochs)
            kept = done + sum(self._epochs[name] for name in names[: names.index(stage)])
            lines = {self._run.metrics.name: kept, self._run.timings.name: kept}
            start = Checkpoint(kept, {}, {**lines, self._run.validation.name: 0})
            Checkpoints(self._run.path, keep=1).rewind(start)
        for _ in range(done):
            self._advance(stage)
        self._since = time.perf_counter()

    def add(self, epoch: Epoch) -> None:
        """Write down an epoch."""
        now = time.perf_counter()
        at = {"stage": epoch.stage, "epoch": epoch.number}
        self._run.append_metrics({**at, "loss": epoch.loss})
        self._run.append_timings({**at, "seconds": now - self._since, "time": time.time()})
        self._since = now
        self._advance(f"{epoch.stage}, loss {epoch.loss:.4f}")
