"""What the folder of an embedding's run tells of its training, finished or not."""

from collections.abc import Iterator, Mapping, Sequence

from pkgllm.config.schema import EmbeddingExperiment
from pkgllm.errors import RunError
from pkgllm.report.run_report import Round
from pkgllm.runs.folder import RunFolder
from pkgllm.runs.records import EpochMetrics, read_grown_records

Epochs = Mapping[str, Sequence[Round]]


def read_epochs(config: EmbeddingExperiment, run: RunFolder) -> Epochs:
    """Return what was written down of every epoch, by stage, in order.

    Raises:
        RunError: If a file cannot be read or is damaged.
    """
    epochs: dict[str, list[Round]] = {}
    timings = {(t.get("stage"), t.get("epoch")): t for t in run.read_timings()}
    for place, record in read_grown_records(run.metrics, EpochMetrics):
        if record.stage not in config.embedding.schedules:
            raise RunError(f"{place}: {record.stage!r} must be a stage of this embedding")
        before = epochs.setdefault(record.stage, [])
        if record.epoch != len(before) + 1:
            raise RunError(f"{place}: epoch must be {len(before) + 1}, got {record.epoch}")
        before.append({**timings.get((record.stage, record.epoch), {}), **record.model_dump()})
    return epochs


def embedding_facts(config: EmbeddingExperiment) -> Iterator[tuple[str, str]]:
    """Yield what a run is, each with its heading."""
    yield "embedding", config.embedding.name
    yield "mode", config.mode.name
    for stage, schedule in config.embedding.schedules.items():
        batch = "all triples" if schedule.batch_size is None else f"{schedule.batch_size} triples"
        yield (
            f"stage {stage}",
            f"{schedule.epochs} epochs, {batch} in a step, {schedule.num_negatives} negatives, "
            f"learning rate {schedule.learning_rate:g}",
        )
    yield "steps of a person's fit", str(config.fold_in.steps)
    yield "corpus", config.corpus.name
    yield "seed", str(config.seed)


def missing_epochs(config: EmbeddingExperiment, epochs: Epochs) -> Iterator[str]:
    """Yield what training has not come to."""
    for stage, schedule in config.embedding.schedules.items():
        done = len(epochs.get(stage, ()))
        if done < schedule.epochs:
            yield f"Stage {stage}: {done} of {schedule.epochs} epochs are there."
