"""Measure what a newcomer waits for: ``pkgllm --help`` and the quick start after installation.

Example: .venv/bin/python scripts/bench_commands.py
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

PKGLLM = str(Path(sys.executable).parent / "pkgllm")


def seconds(command: list[str]) -> float:
    """Return the wall time of a command that must succeed."""
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started


def peak_gigabytes() -> float:
    """Return the largest resident memory of any child so far, in GB of 10^9 bytes."""
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e9


def main() -> None:
    """Print one table, or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true", help="print one object instead")
    arguments = parser.parse_args()
    seconds([PKGLLM, "--help"])  # the first start reads the files from disk
    measured = {"help_seconds": statistics.median(seconds([PKGLLM, "--help"]) for _ in range(9))}
    with tempfile.TemporaryDirectory() as folder:
        command = [PKGLLM, "train", "--config", "quickstart.yaml", "--output", f"{folder}/run"]
        measured["quickstart_seconds"] = seconds(command)
    measured["quickstart_peak_gigabytes"] = peak_gigabytes()
    if arguments.json:
        print(json.dumps(measured))
        return
    print(f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {os.cpu_count()} cores\n")
    print("| what | measured |\n|---|---|")
    for name, value in measured.items():
        print(f"| {name.replace('_', ' ')} | {value:.2f} |")


if __name__ == "__main__":
    main()
