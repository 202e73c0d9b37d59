"""A run's measures for TensorBoard, written by its own writer where that is installed."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pkgllm.files import cannot

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Step:
    """The measures of one round."""

    step: int
    """The round."""
    time: float
    """When it ended, seconds since 1970."""
    scalars: Mapping[str, float]
    """By tag; TensorBoard groups tags by what stands before a slash."""


class EventFile:
    """Adds steps to a file that TensorBoard reads; each one is on the disk when it is added."""

    def __init__(self, folder: Path, writer: "SummaryWriter") -> None:
        self._folder = folder
        self._writer = writer

    def add(self, *steps: Step) -> None:
        """Write steps.

        Raises:
            RunError: If they cannot be written.
        """
        try:
            for step in steps:
                for tag, value in step.scalars.items():
                    self._writer.add_scalar(tag, value, step.step, step.time)
            self._writer.flush()
        except OSError as error:
            raise cannot("write", self._folder, error) from error

    def close(self) -> None:
        """End the writer's thread."""
        self._writer.close()


def new_event_file(folder: Path, steps: Iterable[Step] = ()) -> EventFile | None:
    """Begin an event file with steps, in place of those that a folder holds.

    Returns:
        The file; None, after a warning, where TensorBoard's writer is not installed.

    Raises:
        RunError: If it cannot be written.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        logger.warning(
            "no files for TensorBoard are written, because its writer is not installed; "
            "pip install 'pkgllm[tensorboard]', or set observation.tensorboard=false"
        )
        return None
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        for path in folder.glob("events.out.tfevents.*"):
            path.unlink()
        events = EventFile(folder, SummaryWriter(folder))
    except OSError as error:
        raise cannot("write", folder, error) from error
    events.add(*steps)
    return events
