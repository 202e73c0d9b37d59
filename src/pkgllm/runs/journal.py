"""What is written down while an embedding trains, and where."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pkgllm.files import cannot
from pkgllm.progress import Advance
from pkgllm.runs.checkpoints import Checkpoint, Checkpoints
from pkgllm.runs.folder import RunFolder

EMBEDDING = "embedding.safetensors"
"""The trained embedding. Centralised, it is private, since it holds a row for each training client;
federated, it is what the server has, which is a row of nobody."""

STAGES = "stages"
"""Folder with the checkpoints of each stage of training, and of what clients keep."""


def make_stages(run: RunFolder) -> Path:
    """Return the folder of the stages, made where there is none.

    Raises:
        RunError: If it cannot be made.
    """
    stages = run.path / STAGES
    try:
        stages.mkdir(exist_ok=True)
    except OSError as error:
        raise cannot("make", stages, error) from error
    return stages


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
