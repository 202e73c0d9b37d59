"""Keep what is freed, where asking the system for memory costs more than the work done in it."""

import torch


def keep_freed_memory() -> None:
    """Make the C library keep what the passes free, instead of asking the system for it each time.

    glibc hands blocks back to the system above a threshold that rises to the largest such block
    ever freed, 32 MiB at most. Fresh pages cost more than many a step of a pass on a CPU. Elsewhere
    this does nothing that matters.
    """
    torch.empty(30 << 20, dtype=torch.uint8)
