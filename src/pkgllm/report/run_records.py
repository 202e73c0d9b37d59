"""Read the records of a run folder, finished or not, for its report."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pkgllm.errors import RunError
from pkgllm.evaluation.metrics import hits_at_k, reciprocal_rank
from pkgllm.report.ranking import overall_document
from pkgllm.report.run_report import Round
from pkgllm.runs.folder import RunFolder
from pkgllm.runs.predictions import Predictions
from pkgllm.runs.records import (
    ClientMetrics,
    EpochMetrics,
    RoundMetrics,
    RoundValidation,
    read_grown_records,
)

Epochs = Mapping[str, Sequence[Round]]


def read_rounds(run: RunFolder) -> Iterator[Round]:
    """Yield metrics and timings of every round.

    Raises:
        RunError: If a file cannot be read or is damaged.
    """
    timings = {r.get("round_num"): r for r in run.read_timings()}
    last = 0
    for place, record in read_grown_records(run.metrics, RoundMetrics):
        last = _check_rising(record.round_num, last, place)
        reasons = {client: " ".join(str(why).split()) for client, why in record.failed.items()}
        metrics = record.model_dump(exclude_unset=True)
        yield {**timings.get(last, {}), **metrics, "failed": reasons}


def read_validations(run: RunFolder) -> Iterator[Round]:
    """Yield every validation; errors as for :func:`read_rounds`."""
    last = 0
    for place, record in read_grown_records(run.validation, RoundValidation):
        last = _check_rising(record.round_num, last, place)
        yield record.model_dump(by_alias=True)


def read_losses(run: RunFolder) -> Iterator[float]:
    """Yield the last loss of every client that trained alone, as :func:`read_rounds` does."""
    for _, record in read_grown_records(run.metrics, ClientMetrics):
        if record.loss is not None:
            yield record.loss


def read_epochs(run: RunFolder, stages: Collection[str]) -> Epochs:
    """Return what was written down of every epoch, by stage, in order.

    Raises:
        RunError: If a file cannot be read or is damaged.
    """
    epochs: dict[str, list[Round]] = {}
    timings = {(t.get("stage"), t.get("epoch")): t for t in run.read_timings()}
    for place, record in read_grown_records(run.metrics, EpochMetrics):
        if record.stage not in stages:
            raise RunError(f"{place}: {record.stage!r} must be a stage of this embedding")
        before = epochs.setdefault(record.stage, [])
        if record.epoch != len(before) + 1:
            raise RunError(f"{place}: epoch must be {len(before) + 1}, got {record.epoch}")
        before.append({**timings.get((record.stage, record.epoch), {}), **record.model_dump()})
    return epochs


def check_results(results: Mapping[str, Any], path: Path) -> None:
    """Fail where the tables of the final evaluation cannot be made."""
    try:
        overall_document(results, title="")
        if not all(isinstance(note, str) for note in results.get("notes", ())):
            raise TypeError("notes")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunError(
            f"{path}: does not hold the results of an evaluation ({type(error).__name__}: "
            f"{error}); rank the run again with pkgllm evaluate"
        ) from error


def own_values(predictions: Predictions) -> dict[str, dict[str, Sequence[float]]]:
    """Return every client's own value by metric and model, in no order."""
    values: dict[str, dict[str, Sequence[float]]] = {"hits@10": {}, "mrr": {}}
    for model in predictions.answers:
        ranks = [predictions.ranks(model, [client]) for client in predictions.asked]
        # Sorted, so that a place in the row identifies nobody.
        values["hits@10"][model] = sorted(float(hits_at_k(r, k=10).mean()) for r in ranks)
        values["mrr"][model] = sorted(float(reciprocal_rank(r).mean()) for r in ranks)
    return values


def _check_rising(round_num: int, last: int, place: str) -> int:
    if round_num <= last:
        raise RunError(f"{place}: round_num must be above {last}, got {round_num}")
    return round_num
