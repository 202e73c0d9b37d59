"""Seconds and peak memory of what is done in one process, way after way."""

import ctypes
import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import torch

Found = TypeVar("Found")


def settle(device: torch.device) -> None:
    """Give back what earlier ways have freed, so that the next does not stand on it."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's own
    if trim is not None:
        trim(0)


@dataclass(slots=True)
class Memory:
    """The most memory of a way: of the process on a CPU, of torch on a GPU."""

    device: torch.device
    peak_bytes: int = 0
    """In all, whatever else lies there."""
    above_bytes: int = 0
    """Beside what lay there before the way began."""

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Take note of the most memory inside the block."""
        settle(self.device)
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            # Linux then looks for the most memory anew.
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        before = self._now()
        yield
        peak = self._peak()
        self.peak_bytes = max(self.peak_bytes, peak)
        self.above_bytes = max(self.above_bytes, peak - before)

    def _now(self) -> int:
        if self.device.type == "cuda":
            return torch.cuda.memory_allocated(self.device)
        return _resident("VmRSS")

    def _peak(self) -> int:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        return _resident("VmHWM")


def _resident(field_name: str) -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split(f"{field_name}:")[1].split()[0]) * 1024


@dataclass(slots=True)
class Clock:
    """Seconds of several calls."""

    device: torch.device
    seconds: list[float] = field(default_factory=list)

    def time(self, run: Callable[[], Found]) -> Found:
        """Do what is measured."""
        wait_for(self.device)
        start = time.perf_counter()
        found = run()
        wait_for(self.device)
        self.seconds.append(time.perf_counter() - start)
        return found


def wait_for(device: torch.device) -> None:
    """Let a GPU finish what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
