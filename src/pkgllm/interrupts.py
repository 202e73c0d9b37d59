"""Ctrl-C that is not lost."""

import sys


def keep_interrupts() -> None:
    """Ask again where Ctrl-C came while Python ran a finaliser.

    An exception cannot leave a finaliser, so Python prints and drops it, and the command would run
    on. Garbage collections of a large process take long enough for that to happen.
    """
    sys.unraisablehook = _ask_again


def _ask_again(ignored: "sys.UnraisableHookArgs") -> None:
    if ignored.exc_type is not KeyboardInterrupt:
        sys.__unraisablehook__(ignored)
        return
    import _thread
    import threading

    # Asked at once, it would come before the finaliser has ended, and be dropped again.
    threading.Timer(0.01, _thread.interrupt_main).start()
