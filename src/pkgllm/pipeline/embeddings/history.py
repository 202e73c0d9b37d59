"""What the folder of an embedding's run tells of its training, finished or not."""

import math
from collections.abc import Iterator, Mapping, Sequence

from pkgllm.config.schema import EmbeddingExperiment
from pkgllm.errors import RunError
from pkgllm.report.run_report import Round
from pkgllm.runs.folder import RunFolder

Epochs = Mapping[str, Sequence[Round]]


def read_epochs(config: EmbeddingExperiment, run: RunFolder) -> Epochs:
    """Return what was written down of every epoch, by stage, in order.

    Raises:
        RunError: If a file cannot be read or is damaged.
    """
    found: dict[str, list[Round]] = {}
    timings = {(t.get("stage"), t.get("epoch")): t for t in run.read_timings()}
    for number, record in enumerate(run.read_metrics(), start=1):
        place = f"{run.metrics}: line {number}"
        match record:
            case {"stage": str(stage), "epoch": int(epoch), "loss": int() | float() as loss} if (
                stage in config.embedding.schedules and math.isfinite(loss)
            ):
                so_far = found.setdefault(stage, [])
            case _:
                raise RunError(f"{place}: must hold stage, epoch and loss of this embedding")
        if epoch != len(so_far) + 1:
            raise RunError(f"{place}: epoch must be {len(so_far) + 1}, got {epoch}")
        so_far.append({**timings.get((stage, epoch), {}), **record})
    return found


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
