"""The report of a run, finished or not: read the records in its folder, write tables and plots."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pkgllm.config import schema
from pkgllm.config.load import load_any_config
from pkgllm.errors import RunError
from pkgllm.evaluation.metrics import hits_at_k, reciprocal_rank
from pkgllm.files import cannot, write_atomically
from pkgllm.pipeline.embeddings.history import embedding_facts, missing_epochs, read_epochs
from pkgllm.pipeline.evaluation.comparison import read_predictions
from pkgllm.pipeline.evaluation.ranking import run_title
from pkgllm.report.drawing import FORMATS, check_plots
from pkgllm.report.plots import PLOTS, captions, draw_plots
from pkgllm.report.ranking import overall_document
from pkgllm.report.run_report import Round, RunSummary, run_document
from pkgllm.report.to_markdown import markdown
from pkgllm.runs.folder import RunFolder
from pkgllm.runs.predictions import printable
from pkgllm.runs.records import (
    ClientMetrics,
    RoundMetrics,
    RoundValidation,
    RunOrigin,
    read_grown_records,
    read_object,
    read_record,
)

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
    run = read_run(path)
    plots = draw_plots(run)
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
    shown = {caption: f"{name}.png" for name, caption in captions(run).items()}
    write_atomically(folder / REPORT, markdown(run_document(run, shown), level=1))
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
        _check_results(results, run.results)
    own = _own_values(run) if run.predictions.exists() else {}
    unfinished = tuple(_unfinished(run))
    if isinstance(config, schema.EmbeddingExperiment):
        epochs = read_epochs(config, run)
        return RunSummary(
            title=title,
            facts=(*embedding_facts(config), *_origin(run)),
            mode=config.mode.name,
            epochs=epochs,
            results=results,
            own=own,
            missing=(*missing_epochs(config, epochs), *unfinished),
        )
    local = isinstance(config.mode, schema.Local)
    rounds = () if local else tuple(_rounds(run))
    losses = tuple(_losses(run)) if local else ()
    validations = tuple(_validations(run))
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


def _rounds(run: RunFolder) -> Iterator[Round]:
    timings = {r.get("round_num"): r for r in run.read_timings()}
    last = 0
    for place, record in read_grown_records(run.metrics, RoundMetrics):
        last = _check_rising(record.round_num, last, place)
        reasons = {client: " ".join(str(why).split()) for client, why in record.failed.items()}
        given = record.model_dump(exclude_unset=True)
        yield {**timings.get(last, {}), **given, "failed": reasons}


def _validations(run: RunFolder) -> Iterator[Round]:
    last = 0
    for place, record in read_grown_records(run.validation, RoundValidation):
        last = _check_rising(record.round_num, last, place)
        yield record.model_dump(by_alias=True)


def _losses(run: RunFolder) -> Iterator[float]:
    for _, record in read_grown_records(run.metrics, ClientMetrics):
        if record.loss is not None:
            yield record.loss


def _check_rising(round_num: int, last: int, place: str) -> int:
    if round_num <= last:
        raise RunError(f"{place}: round_num must be above {last}, got {round_num}")
    return round_num


def _check_results(results: Mapping[str, Any], place: Path) -> None:
    """Fail where the tables of the final evaluation cannot be made."""
    try:
        overall_document(results, title="")
        if not all(isinstance(note, str) for note in results.get("notes", ())):
            raise TypeError("notes")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunError(
            f"{place}: does not hold the results of an evaluation ({type(error).__name__}: "
            f"{error}); rank the run again with pkgllm evaluate"
        ) from error


def _own_values(run: RunFolder) -> dict[str, dict[str, Sequence[float]]]:
    predictions = read_predictions(run.path, run.path.name)
    own: dict[str, dict[str, Sequence[float]]] = {"hits@10": {}, "mrr": {}}
    for model in predictions.answers:
        ranks = [predictions.ranks(model, [client]) for client in predictions.asked]
        # Sorted, so that a place in the row identifies nobody.
        own["hits@10"][model] = sorted(float(hits_at_k(r, k=10).mean()) for r in ranks)
        own["mrr"][model] = sorted(float(reciprocal_rank(r).mean()) for r in ranks)
    return own
