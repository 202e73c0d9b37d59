"""One run in tables: what it was, its rounds, its validations, its final numbers, as Markdown."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pkgllm.report.blocks import (
    Block,
    Cell,
    counted,
    list_block,
    number,
    overall,
    spread_blocks,
)
from pkgllm.report.tables import markdown_section, remarks

Round = Mapping[str, Any]
"""What a run tells of a round; of ``cohort`` and ``failed`` it holds clients' ids."""

_FAILURES_SHOWN = 20


@dataclass(frozen=True, slots=True)
class RunStory:
    """What a run folder tells, read and checked."""

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
    """What the run has not written, and why the report cannot show it."""


@dataclass(frozen=True, slots=True)
class _Measure:
    heading: str
    value: Callable[[Round], float | None]
    write: Callable[[float], str]
    best: Callable[[Sequence[float]], float] | None = None
    total: bool = False


def measure(name: str, part: str | None = None) -> Callable[[Round], float | None]:
    """Return what reads a number of a round, or None where the round has none."""

    def read(found: Round) -> float | None:
        value = found.get(name)
        if part is not None:
            value = value.get(part) if isinstance(value, Mapping) else None
        # True is an int, and no number.
        return float(value) if isinstance(value, int | float) and value is not True else None

    return read


def _plain(value: float) -> str:
    return number(value).value


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
    _Measure("loss", measure("loss"), _plain, best=min),
    _Measure("KL baseline that was sent, nats", measure("kl_baseline"), _plain),
    _Measure("length of the server's step", measure("update_norm"), _plain),
    _Measure("length of updates, mean of the cohort", measure("update_norms", "mean"), _plain),
    _Measure("SD in the cohort", measure("update_norms", "sd"), _plain),
    _Measure("cosine to the mean update, mean", measure("update_cosines", "mean"), _plain),
    _Measure("smallest in the cohort", measure("update_cosines", "min"), _plain),
    _Measure("sent to clients", measure("bytes_down"), _bytes, total=True),
    _Measure("sent by clients", measure("bytes_up"), _bytes, total=True),
    _Measure("time of the round", measure("seconds"), _seconds, total=True),
    _Measure("of it training", measure("training_seconds"), _seconds, total=True),
    _Measure("time of validation", measure("validation_seconds"), _seconds, total=True),
)


def markdown_report(story: RunStory, plots: Mapping[str, str]) -> str:
    """Return the report of a run.

    Args:
        story: What the run folder tells.
        plots: The file of each plot by its caption, relative to the report.
    """
    sections = [f"# {story.title}\n"]
    if story.missing:
        sections.append("Not all is there:\n\n" + "".join(f"- {m}\n" for m in story.missing))
    sections.append(markdown_section("The run", [_facts(story)], ()))
    if story.rounds:
        sections.append(markdown_section("Rounds", [_rounds(story)], tuple(_round_notes(story))))
    if story.epochs:
        notes = ("Losses of different stages are not comparable.",) if len(story.epochs) > 1 else ()
        sections.append(markdown_section("Training", [_epochs(story.epochs)], notes))
    if story.losses:
        sections.append(markdown_section("Training", [_losses(story)], ()))
    if story.validations:
        notes = ("Point values over all queries of the validation part, without intervals.",)
        sections.append(markdown_section("Validation", [_validations(story)], notes))
    if story.results is not None:
        blocks = [
            *overall(story.results),
            list_block(story.results),
            *spread_blocks(story.results),
        ]
        notes = (*story.results.get("notes", ()), *remarks(story.results))
        sections.append(markdown_section("Final evaluation", blocks, notes))
    if plots:
        shown = "".join(f"\n![{caption}]({file})\n" for caption, file in plots.items())
        sections.append(f"## Plots\n{shown}")
    return "\n\n".join(section.strip() for section in sections) + "\n"


def _facts(story: RunStory) -> Block:
    rows = tuple(((heading,), (Cell(value),)) for heading, value in story.facts)
    return Block("What was trained, on what", ("", "value"), rows)


def _rounds(story: RunStory) -> Block:
    rows = []
    for kind in _MEASURES:
        found = [(r["round_num"], kind.value(r)) for r in story.rounds]
        values = {at: value for at, value in found if value is not None}
        if not values:
            continue
        *_, last = first, *_ = values.values()
        best = ""
        if kind.best is not None:
            wanted = kind.best(list(values.values()))
            at = next(at for at, value in values.items() if value == wanted)
            best = f"{kind.write(wanted)} (round {at})"
        total = kind.write(sum(values.values())) if kind.total else ""
        cells = (kind.write(first), kind.write(last), best, total)
        rows.append(((kind.heading,), tuple(map(Cell, cells))))
    count = f"{len(story.rounds)} of {story.planned} rounds"
    return Block(count, ("measure", "first", "last", "best", "total"), tuple(rows))


def _round_notes(story: RunStory) -> Iterator[str]:
    if story.mode == "federated" and not any("loss" in r for r in story.rounds):
        yield (
            "No loss: losses are private, and leave the clients only with "
            "privacy.report_private_metrics."
        )
    failures = [(r["round_num"], *failure) for r in story.rounds for failure in _failed(r)]
    if failures:
        drawn = sum(len(r.get("cohort", ())) for r in story.rounds)
        yield f"Updates left out: {len(failures)} of {drawn}."
    for round_num, client, reason in failures[:_FAILURES_SHOWN]:
        yield f"Round {round_num}: client {client}: {reason}"
    if len(failures) > _FAILURES_SHOWN:
        yield f"And {len(failures) - _FAILURES_SHOWN} more, all in metrics.jsonl."
    if story.mode == "federated" and not failures:
        yield "No update was left out."


def _failed(found: Round) -> Sequence[tuple[str, str]]:
    return tuple(found.get("failed", {}).items())


def _losses(story: RunStory) -> Block:
    ordered = sorted(story.losses)
    mean = sum(ordered) / len(ordered)
    values = (mean, ordered[0], ordered[len(ordered) // 2], ordered[-1])
    row = (("last loss",), tuple(Cell(_plain(value)) for value in values))
    title = f"{len(ordered)} clients trained alone, {story.planned} rounds each"
    return Block(title, ("", "mean", "smallest", "median", "largest"), (row,))


def _epochs(epochs: Mapping[str, Sequence[Round]]) -> Block:
    rows = []
    seconds = measure("seconds")
    for stage, told in epochs.items():
        losses = [record["loss"] for record in told]
        least = min(losses)
        spent = sum(value for record in told if (value := seconds(record)) is not None)
        cells = (
            str(len(told)),
            _plain(losses[0]),
            _plain(losses[-1]),
            f"{_plain(least)} (epoch {losses.index(least) + 1})",
            _seconds(spent),
        )
        rows.append(((stage,), tuple(map(Cell, cells))))
    headings = ("stage", "epochs", "first loss", "last loss", "best loss", "time")
    return Block("Epochs of each stage", headings, tuple(rows))


def _validations(story: RunStory) -> Block:
    best = {name: max(v[name] for v in story.validations) for name in ("hits@10", "mrr")}
    rows = tuple(
        (
            (str(v["round_num"]),),
            tuple(
                Cell(_plain(v[name]) + (" (best)" if v[name] == best[name] else ""))
                for name in ("hits@10", "mrr")
            ),
        )
        for v in story.validations
    )
    return Block(f"By round: {counted(story.validations[-1])}", ("round", "Hits@10", "MRR"), rows)
