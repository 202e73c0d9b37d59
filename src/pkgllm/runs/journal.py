"""What is written down while an embedding trains, and where."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pkgllm.errors import StoppedError
from pkgllm.files import make_folder
from pkgllm.interrupts import after_this_round
from pkgllm.progress import Advance, Progress
from pkgllm.runs.checkpoints import Checkpoint, Checkpoints
from pkgllm.runs.folder import RunFolder

logger = logging.getLogger(__name__)

EMBEDDING = "embedding.safetensors"
"""The trained embedding. Centralised, it is private, since it holds a row for each training client;
federated, it is what the server has, which is a row of nobody."""

STAGES = "stages"
"""Folder with the checkpoints of each stage of training, and of what clients keep."""


@contextmanager
def journalled(
    run: RunFolder, lengths: Mapping[str, int], progress: Progress, unit: str
) -> Iterator[tuple["Journal", Callable[[], bool]]]:
    """Occupy a run folder for training; yield its journal, and whether a stop was requested.

    Raises:
        StoppedError: As raised inside, with what to do to go on.
        RunError: If another process trains in the folder, or it cannot be written.
    """

    def announce() -> None:
        logger.warning("stopping after this %s; once more stops at once", unit)

    with (
        run.occupied(),
        after_this_round(announce) as stop_requested,
        progress.track("training", sum(lengths.values())) as advance,
    ):
        make_folder(run.path / STAGES)
        try:
            yield Journal(run, lengths, advance), stop_requested
        except StoppedError as error:
            raise StoppedError(
                f"stopped after a checkpoint; go on with: pkgllm train --resume {run.path}"
            ) from error


class Journal:
    """Writes down every epoch or round, and takes back those that are done again."""

    def __init__(self, run: RunFolder, lengths: Mapping[str, int], advance: Advance) -> None:
        self._run = run
        self._lengths = lengths
        self._advance = advance
        self._since = time.perf_counter()

    def begin(self, stage: str, done: int) -> None:
        """Take back the records of what is done again, in this stage and after it."""
        if done < self._lengths[stage]:
            names = list(self._lengths)
            kept = done + sum(self._lengths[name] for name in names[: names.index(stage)])
            lines = {self._run.metrics.name: kept, self._run.timings.name: kept}
            start = Checkpoint(kept, {}, {**lines, self._run.validation.name: 0})
            Checkpoints(self._run.path, keep=1).rewind(start)
        for _ in range(done):
            self._advance(stage)
        self._since = time.perf_counter()

    def add(self, at: Mapping[str, Any], values: Mapping[str, Any]) -> None:
        """Write down an epoch or a round."""
        now = time.perf_counter()
        self._run.append_metrics({**at, **values})
        self._run.append_timings({**at, "seconds": now - self._since, "time": time.time()})
        self._since = now
        self._advance(f"{at['stage']}, loss {values['loss']:.4f}")
