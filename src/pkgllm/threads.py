"""How torch's threads wait for each other on a busy processor."""

import os

SPINS = "300"
"""About a microsecond; on two idle processors torch is hardly slower than with the default."""


def wait_briefly() -> None:
    """Let OpenMP's threads yield their processor soon while they wait for each other.

    By default they spin for milliseconds (GNU libgomp: 300,000 turns). If another process uses the
    processor that a thread needs, the other threads spin meanwhile, and training on two threads can
    take many times as long as on one. Call it before torch is imported, which reads the variable
    once; child processes inherit it. Values of ``GOMP_SPINCOUNT`` or ``OMP_WAIT_POLICY`` in the
    environment take precedence. Results do not change.

    Source: libgomp's manual, ``GOMP_SPINCOUNT``.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
