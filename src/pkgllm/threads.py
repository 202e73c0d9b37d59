"""How torch's threads wait for each other on a processor that other work wants too."""

import os

SPINS = "300"
"""About a microsecond; on two quiet processors torch is hardly slower than with the default."""


def wait_briefly() -> None:
    """Let OpenMP's threads give their processor up soon while they wait for each other.

    By default they spin for milliseconds (GNU libgomp: 300,000 turns). Where another process holds
    the processor that a thread needs, the others then spin at its cost, and training on two threads
    can take many times as long as on one. To be called before torch is imported, which reads the
    variable once; processes that are started later inherit it. What the environment says already
    (``GOMP_SPINCOUNT`` or ``OMP_WAIT_POLICY``) holds. Results do not change.

    Source: libgomp's manual, ``GOMP_SPINCOUNT``.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
