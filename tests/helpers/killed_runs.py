"""Runs in processes of their own that are killed where a test says."""

import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import yaml

from pkgllm.config.load import load_any_config

_CONTEXT = multiprocessing.get_context("forkserver")
# What takes long to import is there before the process that will be killed begins.
_CONTEXT.set_forkserver_preload(["pkgllm.pipeline.train", "pkgllm.federation.flower.transport"])


def run_until_killed(
    tree: dict[str, object], path: Path, *, resume: bool, instant: float | tuple[str, int] | None
) -> int:
    """Train or go on, and return the exit code; -9 where the run was killed before its end.

    Args:
        tree: The configuration.
        path: The run folder.
        resume: Whether to go on with what is there.
        instant: Seconds after the start, or the name of a function of ``os`` and which of its calls
            to die in; None to let the run end.
    """
    begun = _CONTEXT.Event()
    process = _CONTEXT.Process(target=_work, args=(tree, path, resume, instant, begun))
    process.start()
    if isinstance(instant, float):
        assert begun.wait(60)
        time.sleep(instant)
        process.kill()
    process.join(300)
    assert process.exitcode is not None
    return process.exitcode


def sweep_until_killed(study: str, output: Path, *, instant: tuple[str, int] | None) -> int:
    """Sweep, and return the exit code; ``instant`` is as for :func:`run_until_killed`."""
    process = _CONTEXT.Process(target=_sweep, args=(study, output, instant))
    process.start()
    process.join(300)
    assert process.exitcode is not None
    return process.exitcode


def _sweep(study, output, instant) -> None:  # type: ignore[no-untyped-def]
    from pkgllm.studies.sweep import sweep

    if instant is not None:
        _die_in(*instant)
    sweep(study, output)


def _work(tree, path, resume, instant, begun) -> None:  # type: ignore[no-untyped-def]
    from pkgllm.pipeline import train as jobs
    from pkgllm.progress import Silent

    if isinstance(instant, tuple):
        _die_in(*instant)
    begun.set()
    if resume:
        jobs.resume(path, Silent(), keep=1)
    else:
        file = path.with_suffix(".yaml")
        file.write_text(yaml.safe_dump(tree))
        jobs.train(load_any_config(str(file)), path, Silent(), keep=1)


def _die_in(name: str, call: int) -> None:
    """Kill this process in the n-th call of a function of ``os``, half before it and half after."""
    original = getattr(os, name)
    calls = 0

    def deadly(*arguments: object, **options: object) -> object:
        nonlocal calls
        calls += 1
        if calls < call:
            return original(*arguments, **options)
        if random.Random(call).random() < 0.5:
            original(*arguments, **options)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("killed")

    setattr(os, name, deadly)
