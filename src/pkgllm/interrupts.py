"""Ctrl-C and SIGTERM: neither lost, nor in the way of a round that can still be finished."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


def keep_interrupts() -> None:
    """Ask again where Ctrl-C came while Python ran a finaliser, and heed SIGTERM like Ctrl-C.

    An exception cannot leave a finaliser, so Python prints and drops it, and the command would run
    on. Garbage collections of a large process take long enough for that to happen.
    """
    sys.unraisablehook = _ask_again
    signal.signal(signal.SIGTERM, _interrupt)


@contextmanager
def after_this_round(tell: Callable[[], None]) -> Iterator[Callable[[], bool]]:
    """Let the first Ctrl-C or SIGTERM only ask to stop; the second one interrupts as usual.

    Only the main thread can be asked; in another one nobody is. Inside another such block, what was
    asked there is asked here, and the other way round.

    Args:
        tell: Called at the first.

    Yields:
        Whether a stop was asked for.

    Example:
        >>> with after_this_round(lambda: print("told")) as stop_asked:
        ...     before = stop_asked()
        ...     signal.raise_signal(signal.SIGTERM)
        ...     before, stop_asked()
        told
        (False, True)
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    around = signal.getsignal(signal.SIGINT)
    ask = _Ask(tell, around if isinstance(around, _Ask) else None)
    earlier = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: ask.asked
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


class _Ask:
    """Handles the signals of one block."""

    def __init__(self, tell: Callable[[], None], around: "_Ask | None") -> None:
        self._tell = tell
        self._around = around
        self.asked: bool = around is not None and around.asked

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        if self._around is not None:
            self._around.asked = True
        self._tell()


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _ask_again(ignored: "sys.UnraisableHookArgs") -> None:
    if ignored.exc_type is not KeyboardInterrupt:
        sys.__unraisablehook__(ignored)
        return
    import _thread

    # Asked too soon, it would come before the finaliser has ended, and be dropped again; a busy
    # machine may take a while to end it.
    threading.Timer(0.2, _thread.interrupt_main).start()
