"""What is recorded of a run while it trains. Nothing here changes what is trained."""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pkgllm.runs.events import Step, new_event_file
from pkgllm.runs.folder import RunFolder

if TYPE_CHECKING:
    from torch import Tensor

TENSORBOARD = "tensorboard"
"""Folder of a run that TensorBoard reads."""


class Observer:
    """Records each round's metrics, timings and validation, in files and for TensorBoard.

    Args:
        run: The run folder; where a run is resumed, its files end with the last round that is kept.
        validation: Ranks the validation part with an adapter.
        evaluate_every: Rounds between two validations.
        tensorboard: Whether TensorBoard's files are written as well.
    """

    def __init__(
        self,
        run: RunFolder,
        validation: Callable[[dict[str, "Tensor"]], Mapping[str, float]] | None = None,
        *,
        evaluate_every: int = 0,
        tensorboard: bool = False,
    ) -> None:
        self._run = run
        self._evaluate_every = evaluate_every
        self._validation = validation
        # Written anew from the records, so that no round is drawn twice after a resumption.
        self._events = new_event_file(run.path / TENSORBOARD, steps(run)) if tensorboard else None

    def after_round(
        self,
        round_num: int,
        adapter: dict[str, "Tensor"],
        *,
        metrics: Mapping[str, object],
        timings: Mapping[str, object],
    ) -> None:
        """Record a round.

        ``metrics`` are the same in every repetition of the run; ``timings``, in seconds, are not.

        Raises:
            RunError: If a file cannot be written.
        """
        validation: dict[str, object] = {}
        timings = {"round_num": round_num, **timings}
        if self._validation is not None and round_num % self._evaluate_every == 0:
            started = time.perf_counter()
            validation = {"round_num": round_num, **self._validation(adapter)}
            timings["validation_seconds"] = time.perf_counter() - started
        metrics = {"round_num": round_num, **metrics}
        timings["time"] = time.time()
        self._run.append_metrics(metrics)
        self._run.append_timings(timings)
        if validation:
            self._run.append_validation(validation)
        if self._events is not None:
            self._events.add(_step(metrics, timings, validation))

    def close(self) -> None:
        """End what writes for TensorBoard."""
        if self._events is not None:
            self._events.close()


def steps(run: RunFolder) -> Iterator[Step]:
    """Yield the measures of each round that a run has recorded.

    Raises:
        RunError: If a file cannot be read or is damaged.
    """
    timings, validations = (
        {record.get("round_num"): record for record in records}
        for records in (run.read_timings(), run.read_validation())
    )
    for metrics in run.read_metrics():
        round_num = metrics.get("round_num")
        if isinstance(round_num, int):
            yield _step(metrics, timings.get(round_num, {}), validations.get(round_num, {}))


def _step(
    metrics: Mapping[str, Any], timings: Mapping[str, Any], validation: Mapping[str, Any]
) -> Step:
    scalars = {
        **_scalars("training", metrics),
        **_scalars("validation", validation),
        **_scalars("timings", timings),
    }
    ended = scalars.pop("timings/time", 0.0)
    return Step(metrics["round_num"], ended, scalars)


def _scalars(group: str, record: Mapping[str, object]) -> dict[str, float]:
    """Return the numbers of a record by tag; clients are counted, never named."""
    scalars: dict[str, float] = {}
    for name, value in record.items():
        match name, value:
            case "round_num", _:
                pass
            case "cohort" | "failed" | "weights", list() | dict():
                scalars[f"{group}/{name}"] = len(value)
            case _, int() | float():
                scalars[f"{group}/{name}"] = value
            case _, dict():
                scalars |= _scalars(f"{group}/{name}", value)
    return scalars
