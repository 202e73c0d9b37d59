"""Ctrl-C and SIGTERM: never lost, and a first one lets the current round finish."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


def keep_interrupts() -> None:
    """Repeat a Ctrl-C that arrived inside a finaliser, and treat SIGTERM like Ctrl-C.

    An exception cannot leave a finaliser: Python prints and drops it, and the command would
    continue. Garbage collections of a large process take long enough for that to happen.
    """
    sys.unraisablehook = _interrupt_again
    signal.signal(signal.SIGTERM, _interrupt)


@contextmanager
def after_this_round(announce: Callable[[], None]) -> Iterator[Callable[[], bool]]:
    """Let the first Ctrl-C or SIGTERM only request a stop; the second one interrupts as usual.

    Only the main thread receives signals; in another thread there is never a request. Nested blocks
    share one request.

    Args:
        announce: Called at the first signal.

    Yields:
        A function that returns whether a stop was requested.

    Example:
        >>> with after_this_round(lambda: print("stopping")) as stop_requested:
        ...     before = stop_requested()
        ...     signal.raise_signal(signal.SIGTERM)
        ...     before, stop_requested()
        stopping
        (False, True)
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    outer = signal.getsignal(signal.SIGINT)
    request = _StopRequest(announce, outer if isinstance(outer, _StopRequest) else None)
    numbers = (signal.SIGINT, signal.SIGTERM)
    earlier = {number: signal.signal(number, request) for number in numbers}
    try:
        yield lambda: request.made
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


class _StopRequest:
    """Handles the signals of one block."""

    def __init__(self, announce: Callable[[], None], outer: "_StopRequest | None") -> None:
        self._announce = announce
        self._outer = outer
        self.made: bool = outer is not None and outer.made

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.made:
            raise KeyboardInterrupt
        self.made = True
        if self._outer is not None:
            self._outer.made = True
        self._announce()


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _interrupt_again(ignored: "sys.UnraisableHookArgs") -> None:
    if ignored.exc_type is not KeyboardInterrupt:
        sys.__unraisablehook__(ignored)
        return
    import _thread

    # Too early, it would arrive before the finaliser has ended and be dropped again; on a busy
    # machine that takes a while.
    threading.Timer(0.2, _thread.interrupt_main).start()
