"""Measure training on a quiet and on a busy machine, by how long threads spin for each other.

The whole quick start's training, one round of it, in a process of its own each time; a busy
machine runs one endless loop per processor beside it.

usage: python scripts/bench_busy.py [--json]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pkgllm.threads import SPINS

LIBGOMP = "300000"
"""What GNU libgomp spins where nobody says anything."""
COMMAND = (
    *("train", "-c", "quickstart.yaml", "--set", "mode.rounds=1"),
    *("--set", "evaluation.max_clients=1", "--set", "evaluation.baselines.names=[]"),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print what was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    _seconds(SPINS)  # so that the first one measured finds files in memory, too
    seconds = {}
    for machine, loops in (("quiet", 0), ("busy", os.cpu_count() or 1)):
        with _busy(loops):
            seconds[machine] = {"ours": _seconds(SPINS), "libgomp": _seconds(LIBGOMP)}
    if options.json:
        print(json.dumps({"seconds": seconds}, indent=2))
        return
    for machine, found in seconds.items():
        print(f"{machine}: {found['ours']:.1f} s; by libgomp's default {found['libgomp']:.1f} s")


def _seconds(spins: str) -> float:
    environment = {**os.environ, "GOMP_SPINCOUNT": spins}
    environment.pop("OMP_NUM_THREADS", None)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "pkgllm", *COMMAND, "-o", str(Path(folder) / "run")],
            env=environment,
            check=True,
            capture_output=True,
        )
        return time.perf_counter() - start


@contextmanager
def _busy(loops: int) -> Iterator[None]:
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(loops)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


if __name__ == "__main__":
    main()
