"""The report of a run, finished or not: read the records in its folder, write tables and plots."""

from collections.abc import Iterator
from pathlib import Path

from pkgllm.config import schema
from pkgllm.config.load import load_any_config
from pkgllm.files import cannot, write_atomically
from pkgllm.pipeline.comparison import read_predictions
from pkgllm.pipeline.ranking import run_title
from pkgllm.report.drawing import FORMATS, check_plots
from pkgllm.report.plots import PLOTS, captions, draw_plots
from pkgllm.report.run_records import (
    Epochs,
    check_results,
    own_values,
    read_epochs,
    read_losses,
    read_rounds,
    read_validations,
)
from pkgllm.report.run_report import RunSummary, run_document
from pkgllm.report.to_markdown import markdown
from pkgllm.runs.folder import RunFolder
from pkgllm.runs.predictions import printable
from pkgllm.runs.records import RunOrigin, damage_named, read_object, read_record

REPORT = "report.md"


def write_report(path: Path, output: Path | None = None) -> tuple[Path, tuple[str, ...]]:
    """Write the report of a run, in place of an earlier one.

    Args:
        path: The run folder.
        output: Folder for the report, made if absent; ``RUN/report`` when not given. Other files
            in it stay.

    Returns:
        The report, and what is missing in it.

    Raises:
        RunError: If the folder is no run, a file in it is damaged, nothing can be drawn, or the
            report cannot be written.
        ConfigError: If the run's configuration does not load.
    """
    check_plots()
    with damage_named(path):
        run = read_run(path)
        plots = draw_plots(run)
        document = run_document(
            run, {caption: f"{name}.png" for name, caption in captions(run).items()}
        )
        page = markdown(document, level=1)
    folder = path / "report" if output is None else output
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in PLOTS:
            # An earlier report may have had more to draw.
            for form in FORMATS:
                if name not in plots:
                    (folder / f"{name}.{form}").unlink(missing_ok=True)
    except OSError as error:
        raise cannot("write the report to", folder, error) from error
    for name, forms in plots.items():
        for form, content in forms.items():
            write_atomically(folder / f"{name}.{form}", content)
    write_atomically(folder / REPORT, page)
    return folder / REPORT, run.missing


def read_run(path: Path) -> RunSummary:
    """Read the records that a run folder holds so far.

    Raises:
        RunError: If the folder is no run, or a file in it is damaged.
        ConfigError: If the run's configuration does not load.
    """
    run = RunFolder.open(path)
    config = load_any_config(str(run.config))
    title = f"{Path(printable(path.resolve())).name}: {run_title(config)}"
    results = read_object(run.results) if run.results.exists() else None
    if results is not None:
        check_results(results, run.results)
    ranked = run.predictions.exists()
    own = own_values(read_predictions(run.path, run.path.name)) if ranked else {}
    unfinished = tuple(_unfinished(run))
    if isinstance(config, schema.EmbeddingExperiment):
        epochs = read_epochs(run, config.embedding.schedules)
        return RunSummary(
            title=title,
            facts=(*_embedding_facts(config), *_origin(run)),
            mode=config.mode.name,
            epochs=epochs,
            results=results,
            own=own,
            missing=(*_missing_epochs(config, epochs), *unfinished),
        )
    local = isinstance(config.mode, schema.Local)
    rounds = () if local else tuple(read_rounds(run))
    losses = tuple(read_losses(run)) if local else ()
    validations = tuple(read_validations(run))
    trained = _missing(config, run, len(rounds), len(losses), len(validations))
    return RunSummary(
        title=title,
        facts=(*_facts(config), *_origin(run)),
        mode=config.mode.name,
        planned=config.mode.rounds,
        rounds=rounds,
        losses=losses,
        validations=validations,
        results=results,
        own=own,
        missing=(*trained, *unfinished),
    )


def _facts(config: schema.Experiment) -> Iterator[tuple[str, str]]:
    mode = config.mode
    yield "objective", config.objective.name
    yield "mode", mode.name
    if isinstance(mode, schema.Federated):
        yield "strategy", mode.strategy.name
        yield "clients in a round", str(mode.cohort_size)
    yield "rounds", str(mode.rounds)
    yield "local steps", str(config.training.local_steps)
    yield "learning rate", f"{config.training.learning_rate:g}, {config.training.schedule}"
    yield "base model", printable(Path(config.base_model.name))
    yield "adapter", f"LoRA rank {config.adapter.lora_rank}, alpha {config.adapter.lora_alpha:g}"
    yield "corpus", config.corpus.name
    yield "seed", str(config.seed)
    private = config.privacy.report_private_metrics
    yield "private metrics reported", "yes, so the run is not private" if private else "no"


def _origin(run: RunFolder) -> Iterator[tuple[str, str]]:
    if run.provenance.exists():
        origin = read_record(run.provenance, RunOrigin)
        for heading, value in (("begun", origin.date), ("pkgllm", origin.packages.get("pkgllm"))):
            if value is not None:
                yield heading, value


def _missing(
    config: schema.Experiment, run: RunFolder, rounds: int, losses: int, validations: int
) -> Iterator[str]:
    if isinstance(config.mode, schema.Local):
        if not losses:
            yield f"Training: {run.metrics.name} names no client that is trained yet."
        elif not run.results.exists():
            yield f"Training: {losses} clients so far."
    elif rounds < config.mode.rounds:
        yield f"Rounds: {rounds} of {config.mode.rounds} are there; the run stopped or still goes."
    if rounds and not run.timings.exists():
        yield f"Times: {run.timings.name} is missing."
    every = config.observation.evaluate_every
    if not every:
        yield "Validation by round: observation.evaluate_every is 0, so there is none."
    elif validations < config.mode.rounds // every:
        yield f"Validation by round: {validations} of {config.mode.rounds // every} are there."


def _unfinished(run: RunFolder) -> Iterator[str]:
    if not run.results.exists():
        yield f"Final evaluation: {run.results.name} is missing, since the run has not ended."
    if not run.predictions.exists():
        yield f"Spread over clients: {run.predictions.name} is missing."


def _embedding_facts(config: schema.EmbeddingExperiment) -> Iterator[tuple[str, str]]:
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


def _missing_epochs(config: schema.EmbeddingExperiment, epochs: Epochs) -> Iterator[str]:
    for stage, schedule in config.embedding.schedules.items():
        done = len(epochs.get(stage, ()))
        if done < schedule.epochs:
            yield f"Stage {stage}: {done} of {schedule.epochs} epochs are there."
