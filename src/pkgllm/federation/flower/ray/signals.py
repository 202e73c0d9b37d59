"""Ctrl-C and SIGTERM while a run is on Ray: the run ends first, then the signal does what it does.

Ray puts a handler of its own in place, for good. And an exception that is raised amid Flower's
engine shuts Ray down under threads that wait for an actor's answer; they would wait forever, and
the process with them. So here the actors are killed first, which answers whoever waits.
"""

import contextlib
import gc
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

_PAUSE_SECONDS = 0.5

_ACTORS = "ClientAppActor"
"""The class of the engine's actors, as it stands in their names."""


class RaySignals:
    """What SIGINT and SIGTERM do from now on; entered in the main thread, or without effect.

    Handlers that only ask for an end after the round in flight are asked, and the run goes on.
    """

    def __init__(self) -> None:
        self._in_main_thread = threading.current_thread() is threading.main_thread()
        self._before: dict[int, Any] = {}
        self._met: list[int] = []
        self._waits = False
        self._asked = threading.Event()

    def __enter__(self) -> "RaySignals":
        if self._in_main_thread:
            self._before = {
                number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)
            }
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if kind is SystemExit:
            # Ray's own handler, met while Ray starts, ends the process as SIGTERM does.
            for number in self._met or list(self._before)[1:]:
                signal.raise_signal(number)

    def handle(self) -> None:
        """Put the handlers in place, once Ray has put its own there."""
        for number in self._before:
            signal.signal(number, self._leave)

    @contextlib.contextmanager
    def end_simulation(self, stop_server: Callable[[], None]) -> Iterator[None]:
        """Let the first signal end the block by ending server and actors, the second one at once.

        Raises:
            SystemExit: When the block has ended after a signal.
        """
        left = threading.Event()

        def end() -> None:
            self._asked.wait()
            # Again and again, because the signal may come before all actors are there.
            killed: set[str] = set()
            while not left.is_set():
                stop_server()
                _kill_actors(killed)
                left.wait(_PAUSE_SECONDS)

        thread = threading.Thread(target=end, name="pkgllm-ray-end", daemon=True)
        self._waits = True
        thread.start()
        try:
            yield
        finally:
            self._waits = False
            left.set()
            self._asked.set()
            thread.join()
            if self._met:
                sys.exit(128 + self._met[-1])

    def _leave(self, number: int, frame: FrameType | None) -> None:
        earlier = self._before[number]
        if callable(earlier):
            try:
                earlier(number, frame)
            except KeyboardInterrupt:
                pass
            else:
                return
        self._met.append(number)
        if self._waits and not self._asked.is_set():
            self._asked.set()
        else:
            sys.exit(128 + number)


def _kill_actors(killed: set[str]) -> None:
    """Kill the engine's actors for good; Flower hands out none, so they are found by their kind.

    Ray's own list would come from a server of its that may be going, and would be waited for.
    """
    import ray

    for handle in gc.get_objects():
        if issubclass(type(handle), ray.actor.ActorHandle):
            name = repr(handle)
            if _ACTORS in name and name not in killed:
                killed.add(name)
                # When Ray has ended in the meantime, so have they.
                with contextlib.suppress(ray.exceptions.RaySystemError):
                    ray.kill(handle)
