"""What is written down of a run while it trains. Nothing here changes what is trained."""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pkgllm.config import schema
from pkgllm.lm.adapter import AdapterState
from pkgllm.runs.events import Step, append_event, write_events
from pkgllm.runs.folder import RunFolder

TENSORBOARD = "tensorboard"
"""Folder of a run that TensorBoard reads."""


class Observer:
    """Writes down what each round tells: metrics, timings, validations, and TensorBoard's events.

    Args:
        run: The run folder; where a run goes on, its files end with the last round that is kept.
        choice: What is wanted.
        validation: Ranks the validation part with an adapter.
    """

    def __init__(
        self,
        run: RunFolder,
        choice: schema.Observation,
        validation: Callable[[AdapterState], Mapping[str, float]] | None = None,
    ) -> None:
        self._run = run
        self._choice = choice
        self._validation = validation
        if choice.tensorboard:
            write_events(run.path / TENSORBOARD, steps(run))

    def after_round(
        self,
        round_num: int,
        adapter: AdapterState,
        *,
        metrics: Mapping[str, object],
        timings: Mapping[str, object],
    ) -> None:
        """Write down a round.

        Args:
            round_num: The round.
            adapter: The adapter after it.
            metrics: What is the same in every repetition of the run.
            timings: What is not, such as seconds.

        Raises:
            RunError: If a file cannot be written.
        """
        found: dict[str, object] = {}
        taken = dict(timings)
        if self._validation is not None and round_num % self._choice.evaluate_every == 0:
            started = time.perf_counter()
            found = {"round_num": round_num, **self._validation(adapter)}
            taken["validation_seconds"] = time.perf_counter() - started
        metrics = {"round_num": round_num, **metrics}
        taken = {"round_num": round_num, **taken, "time": time.time()}
        self._run.append_metrics(metrics)
        self._run.append_timings(taken)
        if found:
            self._run.append_validation(found)
        if self._choice.tensorboard:
            append_event(self._run.path / TENSORBOARD, _step(metrics, taken, found))


def steps(run: RunFolder) -> Iterator[Step]:
    """Yield what the files of a run tell of its rounds.

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
    when = scalars.pop("timings/time", 0.0)
    return Step(metrics["round_num"], when, scalars)


def _scalars(group: str, record: Mapping[str, object]) -> dict[str, float]:
    """Return the numbers of a record by tag; of clients, how many they are, never who."""
    found: dict[str, float] = {}
    for name, value in record.items():
        match name, value:
            case "round_num", _:
                pass
            case "cohort" | "failed", list() | dict():
                found[f"{group}/{name}"] = len(value)
            case _, int() | float():
                found[f"{group}/{name}"] = value
            case _, dict():
                found |= _scalars(f"{group}/{name}", value)
    return found
