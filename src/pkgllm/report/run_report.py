"""One run as a document: what it was, its rounds, its validations, its final numbers."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pkgllm.report.document import (
    Cell,
    Document,
    Figure,
    Paragraph,
    Table,
    columns,
    counted,
    decimal,
    texts,
)
from pkgllm.report.ranking import overall_document

Round = Mapping[str, Any]
"""The measures of a round by name; ``cohort`` and ``failed`` hold clients' ids."""

_FAILURES_SHOWN = 20


@dataclass(frozen=True, slots=True)
class RunSummary:
    """The records of a run folder, read and checked."""

    title: str
    facts: tuple[tuple[str, str], ...]
    """What the run is, by heading."""
    mode: str
    planned: int = 0
    """Rounds that the run is to have."""
    rounds: tuple[Round, ...] = ()
    """Metrics and timings of every round so far, in order; none in mode ``local``."""
    losses: tuple[float, ...] = ()
    """In mode ``local``, the last loss of every client so far."""
    epochs: Mapping[str, Sequence[Round]] = field(default_factory=dict)
    """Of an embedding, loss and seconds of every epoch so far, by stage."""
    validations: tuple[Round, ...] = ()
    results: Mapping[str, Any] | None = None
    """The final numbers."""
    own: Mapping[str, Mapping[str, Sequence[float]]] = field(default_factory=dict)
    """By metric and model, every client's own value in the final evaluation, in no order."""
    missing: tuple[str, ...] = ()
    """What the run has not written, with the reason, a sentence each."""


@dataclass(frozen=True, slots=True)
class _Measure:
    heading: str
    value: Callable[[Round], float | None]
    write: Callable[[float], str]
    best: Callable[[Sequence[float]], float] | None = None
    total: bool = False


def measure(name: str, part: str | None = None) -> Callable[[Round], float | None]:
    """Return a reader of a round's measure; it returns None where the round has none."""

    def read(record: Round) -> float | None:
        value = record.get(name)
        if part is not None:
            value = value.get(part) if isinstance(value, Mapping) else None
        # A bool is an int as well.
        if not isinstance(value, int | float) or isinstance(value, bool) or abs(value) > 1e300:
            return None
        return float(value) if math.isfinite(value) else None

    return read


def _bytes(value: float) -> str:
    """Write a number of bytes in the largest unit that leaves a digit before the point.

    Example:
        >>> _bytes(512), _bytes(1_530_000)
        ('512 B', '1.5 MB')
    """
    for unit in ("B", "kB", "MB", "GB"):
        if abs(value) < 1000:
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def _seconds(value: float) -> str:
    return f"{value:.1f} s"


_MEASURES = (
    _Measure("loss", measure("loss"), decimal, best=min),
    _Measure("KL baseline that was sent, nats", measure("kl_baseline"), decimal),
    _Measure("length of the server's step", measure("update_norm"), decimal),
    _Measure("length of updates, mean of the cohort", measure("update_norms", "mean"), decimal),
    _Measure("SD in the cohort", measure("update_norms", "sd"), decimal),
    _Measure("cosine to the mean update, mean", measure("update_cosines", "mean"), decimal),
    _Measure("smallest in the cohort", measure("update_cosines", "min"), decimal),
    _Measure("sent to clients", measure("bytes_down"), _bytes, total=True),
    _Measure("sent by clients", measure("bytes_up"), _bytes, total=True),
    _Measure("time of the round", measure("seconds"), _seconds, total=True),
    _Measure("of it training", measure("training_seconds"), _seconds, total=True),
    _Measure("time of validation", measure("validation_seconds"), _seconds, total=True),
)


def run_document(run: RunSummary, plots: Mapping[str, str]) -> Document:
    """Return the report of a run.

    Args:
        run: What the run folder holds.
        plots: The file of each plot by its caption, relative to the report.
    """
    blocks: list[Paragraph | Document] = []
    if run.missing:
        blocks.append(Paragraph("Not all is there:", run.missing))
    facts = tuple(texts(heading, value) for heading, value in run.facts)
    table = Table("What was trained, on what", columns("", "value"), facts)
    blocks.append(Document("The run", (table,)))
    if run.rounds:
        blocks.append(Document("Rounds", (_rounds(run),), tuple(_round_notes(run))))
    if run.epochs:
        notes = ("Losses of different stages are not comparable.",) if len(run.epochs) > 1 else ()
        blocks.append(Document("Training", (_epochs(run.epochs),), notes))
    if run.losses:
        blocks.append(Document("Training", (_losses(run),)))
    if run.validations:
        notes = ("Point values over all queries of the validation part, without intervals.",)
        blocks.append(Document("Validation", (_validations(run),), notes))
    if run.results is not None:
        blocks.append(overall_document(run.results, title="Final evaluation"))
    if plots:
        figures = tuple(Figure(caption, file) for caption, file in plots.items())
        blocks.append(Document("Plots", figures))
    return Document(run.title, tuple(blocks))


def _rounds(run: RunSummary) -> Table:
    rows = []
    for kind in _MEASURES:
        read = [(r["round_num"], kind.value(r)) for r in run.rounds]
        values = {at: value for at, value in read if value is not None}
        if not values:
            continue
        *_, last = first, *_ = values.values()
        best = ""
        if kind.best is not None:
            best_value = kind.best(list(values.values()))
            at = next(at for at, value in values.items() if value == best_value)
            best = f"{kind.write(best_value)} (round {at})"
        total = kind.write(sum(values.values())) if kind.total else ""
        rows.append(texts(kind.heading, kind.write(first), kind.write(last), best, total))
    title = f"{len(run.rounds)} of {run.planned} rounds"
    return Table(title, columns("measure", "first", "last", "best", "total"), tuple(rows))


def _round_notes(run: RunSummary) -> Iterator[str]:
    if run.mode == "federated" and not any("loss" in r for r in run.rounds):
        yield (
            "No loss: losses are private, and leave the clients only with "
            "privacy.report_private_metrics."
        )
    failures = [(r["round_num"], *failure) for r in run.rounds for failure in _failed(r)]
    if failures:
        drawn = sum(len(r.get("cohort", ())) for r in run.rounds)
        yield f"Updates left out: {len(failures)} of {drawn}."
    for round_num, client, reason in failures[:_FAILURES_SHOWN]:
        yield f"Round {round_num}: client {client}: {reason}"
    if len(failures) > _FAILURES_SHOWN:
        yield f"And {len(failures) - _FAILURES_SHOWN} more, all in metrics.jsonl."
    if run.mode == "federated" and not failures:
        yield "No update was left out."


def _failed(record: Round) -> Sequence[tuple[str, str]]:
    return tuple(record.get("failed", {}).items())


def _losses(run: RunSummary) -> Table:
    ordered = sorted(run.losses)
    mean = sum(ordered) / len(ordered)
    values = (mean, ordered[0], ordered[len(ordered) // 2], ordered[-1])
    row = texts("last loss", *map(decimal, values))
    title = f"{len(ordered)} clients trained alone, {run.planned} rounds each"
    return Table(title, columns("", "mean", "smallest", "median", "largest"), (row,))


def _epochs(epochs: Mapping[str, Sequence[Round]]) -> Table:
    rows = []
    seconds = measure("seconds")
    for stage, records in epochs.items():
        losses = [record["loss"] for record in records]
        least = min(losses)
        best = f"{decimal(least)} (epoch {losses.index(least) + 1})"
        spent = sum(value for record in records if (value := seconds(record)) is not None)
        ends = (decimal(losses[0]), decimal(losses[-1]))
        rows.append(texts(stage, str(len(records)), *ends, best, _seconds(spent)))
    headings = columns("stage", "epochs", "first loss", "last loss", "best loss", "time")
    return Table("Epochs of each stage", headings, tuple(rows))


def _validations(run: RunSummary) -> Table:
    metrics = ("hits@10", "mrr")
    best = {name: max(v[name] for v in run.validations) for name in metrics}
    rows = tuple(
        (
            Cell(str(v["round_num"])),
            *(
                Cell(f"{decimal(v[name])}{' (best)' if v[name] == best[name] else ''}", v[name])
                for name in metrics
            ),
        )
        for v in run.validations
    )
    title = f"By round: {counted(run.validations[-1])}"
    return Table(title, columns("round", "Hits@10", "MRR"), rows)
