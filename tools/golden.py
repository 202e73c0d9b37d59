"""Run the small world's configurations, and compare what they leave with an earlier version's.

usage: python tools/golden.py record DIR      run everything; keep the outputs in DIR
       python tools/golden.py check DIR       run again and compare with DIR, byte for byte
       python tools/golden.py digests DIR     print DIR's digests, to be kept in tools/golden.json

Sums of floats depend on the processor, so digests are compared on one machine only. Where bytes
differ, the largest difference between the numbers in both files is printed; exit status 1.
"""

import argparse
import hashlib
import json
import math
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from safetensors.numpy import load_file

FEW = ["--set", "evaluation.max_clients=20", "--set", "evaluation.bootstrap_resamples=200"]
SHORT = [*FEW, "--set", "mode.rounds=3"]

TRAIN: dict[str, list[str]] = {
    "quickstart": ["-c", "quickstart.yaml", *FEW, "--set", "mode.rounds=6"],
    # Private noise is drawn from the system otherwise, and never the same.
    "quickstart-dp": ["-c", "quickstart-dp.yaml", *SHORT, "--insecure-fixed-noise"],
    "client-dp": [
        "-c",
        "quickstart-dp.yaml",
        *SHORT,
        "--insecure-fixed-noise",
        "--set",
        "privacy={name: client, delta: 1e-3, clip_norm: 0.1, target_epsilon: 8}",
    ],
    "local": ["-c", "quickstart.yaml", *FEW, "--set", "mode={name: local, rounds: 1}"],
    "centralized": [
        "-c",
        "quickstart.yaml",
        *FEW,
        "--set",
        "mode={name: centralized, rounds: 3, cohort_size: 12}",
    ],
    "dpo": ["-c", "quickstart.yaml", *SHORT, "--set", "objective={name: dpo, nll_weight: 0.125}"],
    "sequential": [
        "-c",
        "quickstart.yaml",
        *SHORT,
        "--set",
        "training.engine=sequential",
        "--set",
        "mode.cohort_size=4",
    ],
    "hake": ["-c", "baselines/hake.yaml", *FEW, "--set", "embedding.schedule.epochs=5"],
    "hake-fed": ["-c", "baselines/hake-fed.yaml", *FEW, "--set", "embedding.schedule.epochs=6"],
    "kbgat-fed": ["-c", "baselines/kbgat-fed.yaml", *FEW],
}
STUDY = """\
base: quickstart.yaml
set: [mode.rounds=2, mode.cohort_size=6, evaluation.max_clients=10]
grid:
  strategy:
    fedavg: []
    fedprox: ["mode.strategy={name: fedprox}"]
    scaffold: ["mode.strategy={name: scaffold}", training.optimizer=sgd, training.learning_rate=0.3]
    fedavgm: ["mode.strategy={name: fedavgm}"]
    fedadagrad: ["mode.strategy={name: fedadagrad}"]
    fedyogi: ["mode.strategy={name: fedyogi}"]
    fedadam: ["mode.strategy={name: fedadam}"]
    krum: ["mode.strategy={name: krum, num_malicious: 1}"]
    fedmedian: ["mode.strategy={name: fedmedian}"]
    fedtrimmedavg: ["mode.strategy={name: fedtrimmedavg}"]
models: [tuned, base, popularity]
reference: {strategy: fedavg}
"""
KEPT = re.compile(
    r"(metrics|predictions|validation)\.jsonl|results\.json|study\.json|.*\.safetensors"
)
CLIENTS = "clients"
"""Folder of what embeddings' clients keep to themselves: no result."""
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e-?\d+)?")


def run(arguments: list[str], place: Path) -> None:
    """Run the command line of the package that this interpreter imports."""
    done = subprocess.run(
        [sys.executable, "-m", "pkgllm", *arguments],
        capture_output=True,
        text=True,
        cwd=place,
        # The order of sums depends on the number of threads.
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    if done.returncode:
        raise SystemExit(f"pkgllm {' '.join(arguments)}: exit {done.returncode}\n{done.stderr}")


def run_one(name: str, folder: Path) -> None:
    """Run one configuration, or the study, and keep what decides numbers."""
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        if name == "study":
            (place / "study.yaml").write_text(STUDY)
            run(["sweep", "-c", "study.yaml", "-o", "out"], place)
        else:
            run(["train", *TRAIN[name], "-o", "out"], place)
        for path in files(place / "out").values():
            if KEPT.fullmatch(path.name):
                kept = folder / name / path.relative_to(place / "out")
                kept.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, kept)
    print(f"ran {name}", file=sys.stderr)


def files(folder: Path) -> dict[str, Path]:
    """Return the files below a folder by their relative path, without what clients keep."""
    paths = {path.relative_to(folder): path for path in sorted(folder.rglob("*"))}
    return {str(p): path for p, path in paths.items() if path.is_file() and CLIENTS not in p.parts}


def difference(first: Path, second: Path) -> float:
    """Return the largest difference of numbers in two files; infinite where others differ."""
    if first.suffix == ".safetensors":
        one, other = load_file(first), load_file(second)
        if {k: v.shape for k, v in one.items()} != {k: v.shape for k, v in other.items()}:
            return math.inf
        return max(float(abs(one[key] - other[key]).max()) for key in one)
    one_text, other_text = first.read_text(), second.read_text()
    if NUMBER.sub("#", one_text) != NUMBER.sub("#", other_text):
        return math.inf
    pairs = zip(NUMBER.findall(one_text), NUMBER.findall(other_text), strict=True)
    return max((abs(float(a) - float(b)) for a, b in pairs), default=0.0)


def compare(expected: Path, actual: Path, names: list[str]) -> Iterator[str]:
    """Yield a line for each file that is not the same."""
    for name in names:
        before, after = files(expected / name), files(actual / name)
        for path in sorted(before.keys() | after.keys()):
            if path not in before or path not in after:
                yield f"{name}/{path}: only {'before' if path in before else 'now'}"
            elif before[path].read_bytes() != after[path].read_bytes():
                gap = difference(before[path], after[path])
                yield f"{name}/{path}: differs by at most {gap:.3g}"


def main() -> None:
    """Record, check or print digests."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("action", choices=("record", "check", "digests"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="+", choices=[*TRAIN, "study"], default=[*TRAIN, "study"])
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    if options.action == "digests":
        digests = {
            k: hashlib.sha256(p.read_bytes()).hexdigest() for k, p in files(options.folder).items()
        }
        print(
            json.dumps(
                {"machine": platform.processor() or platform.machine(), "files": digests}, indent=1
            )
        )
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder if options.action == "record" else Path(temporary)
        with ThreadPoolExecutor(options.processes) as pool:
            for _ in pool.map(lambda name: run_one(name, folder), options.only):
                pass
        if options.action == "record":
            return
        lines = list(compare(options.folder, folder, options.only))
    print("\n".join(lines) if lines else "every file is the same, byte for byte")
    raise SystemExit(bool(lines))


if __name__ == "__main__":
    main()
