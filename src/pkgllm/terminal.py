"""What a person sees: bars in a terminal, plain lines in a log."""

import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import (
    Progress as RichProgress,
)
from rich.segment import Segment

from pkgllm.printable import printable
from pkgllm.progress import Advance

_SECONDS_BETWEEN_LINES = 10.0


class PrintableConsole(Console):
    """Shows text of others without the control characters in it; styles stay."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Yield the segments of what is printed."""
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                yield Segment(printable(segment.text), segment.style)


class TerminalProgress:
    """Progress on the error stream, so that the output stream holds results only.

    Args:
        console: Where to; a bar where it is a terminal, else a line every few seconds.
    """

    def __init__(self, console: Console) -> None:
        self._console = console

    def track(self, description: str, total: int) -> AbstractContextManager[Advance]:
        """Open a piece of work of ``total`` units."""
        return (self._bar if self._console.is_terminal else self._lines)(description, total)

    @contextmanager
    def _bar(self, description: str, total: int) -> Iterator[Advance]:
        columns = (
            TextColumn("{task.description:<16}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[detail]}"),
        )
        with RichProgress(*columns, console=self._console) as bar:
            task = bar.add_task(description, total=total, detail="")

            def advance(detail: str = "") -> None:
                bar.update(task, advance=1, detail=printable(detail))

            yield advance

    @contextmanager
    def _lines(self, description: str, total: int) -> Iterator[Advance]:
        started = last = time.monotonic()
        done = 0

        def advance(detail: str = "") -> None:
            nonlocal done, last
            done += 1
            now = time.monotonic()
            if done == total or now - last >= _SECONDS_BETWEEN_LINES:
                last = now
                beside = f", {printable(detail)}" if detail else ""
                line = f"{description}: {done}/{total}, {now - started:.0f} s{beside}"
                self._console.print(line, highlight=False, markup=False, soft_wrap=True)

        yield advance


class WarningHandler(logging.Handler):
    """Shows warnings above a bar that may be open.

    Args:
        console: The one that the bars are drawn on.
    """

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record on one line of its own."""
        line = printable(f"{record.levelname.lower()}: {record.getMessage()}")
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)


def show_progress() -> TerminalProgress:
    """Return progress on the error stream, on which our warnings appear from now on as well."""
    console = PrintableConsole(stderr=True)
    # Our own logger only: those of Flower and others stay as their users set them up.
    logging.getLogger("pkgllm").handlers = [WarningHandler(console)]
    return TerminalProgress(console)
