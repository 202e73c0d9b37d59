"""How the C library's allocator is made to reuse freed memory between passes."""

import torch


def keep_freed_memory() -> None:
    """Let glibc keep freed blocks of up to 30 MiB for reuse.

    glibc returns larger blocks than a threshold to the system, and a fresh page costs more than
    many steps of a pass on a CPU. The threshold rises to the largest block freed so far, 32 MiB at
    most, so freeing one large block is enough. With another allocator this has no effect.
    """
    torch.empty(30 << 20, dtype=torch.uint8)
