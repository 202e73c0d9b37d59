"""Progress of long work, independent of how it is shown."""

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol


class Advance(Protocol):
    """Called once for every finished unit of work."""

    def __call__(self, detail: str = "") -> None:
        """Count one unit; ``detail`` may replace what is shown beside the bar."""
        ...


class Progress(Protocol):
    """Shows work of a known length."""

    def track(self, description: str, total: int) -> AbstractContextManager[Advance]:
        """Open a task of ``total`` units."""
        ...


class Silent:
    """Shows nothing."""

    def track(self, description: str, total: int) -> AbstractContextManager[Advance]:
        """Return a counter that is not shown."""

        def advance(detail: str = "") -> None: ...

        return nullcontext(advance)
