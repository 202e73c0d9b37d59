"""Measure a round, and the memory it takes, as the population grows around a cohort of one size.

For each size a small world is generated, and its clients' groups are written to a file as training
does. A fresh process then trains rounds with that file and the base model alone. Who is drawn
differs from population to population, so seconds are also given for 1,000 tokens. The reference is
computed when a group is first met, which happens less and less in a small population: its seconds
are shown apart and are not in the seconds for 1,000 tokens. Needs Linux.

Example: .venv/bin/python scripts/bench_population.py --sizes 100 1000 --cohort-size 32
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from torch import Tensor

from pkgllm.config.load import load_config
from pkgllm.config.schema import Experiment
from pkgllm.errors import PkgllmError
from pkgllm.federation.algorithms.fedavg import FedAvg
from pkgllm.federation.clients import LocalClients
from pkgllm.federation.flower.client_app import CohortApp
from pkgllm.federation.flower.grid import LocalGrid
from pkgllm.federation.flower.transport import FlowerTransport
from pkgllm.federation.rounds import RoundRecord, Rounds, run_rounds
from pkgllm.lm.adapter import adapter_state, attach_adapter
from pkgllm.lm.base_model import load_base_model
from pkgllm.lm.lanes.decoder import LaneDecoder
from pkgllm.pipeline.build import (
    build_groups,
    make_writer,
    populate,
    read_corpus,
)
from pkgllm.progress import Silent
from pkgllm.prompts.group_store import GroupStore
from pkgllm.training.cohort import LaneTrainer
from pkgllm.training.lane_passes import reference_scorer
from pkgllm.training.local import LocalSteps
from pkgllm.training.log_probabilities import Branch
from pkgllm.training.reference import ReferenceColumn, ReferenceScore

# The generators are not installed with the package.
sys.path.insert(0, str(Path(__file__).parents[1]))

from tools.small_world import generate_small_world

SEED, WARM_UP = 0, 2
TIMEOUT = 3600.0
"""Seconds for a round."""
LOCAL_STEPS, GROUPS_PER_STEP = 1, 2
PASS_BYTES = 2 << 30
"""As ``pkgllm train`` has them on a CPU."""


@dataclass(frozen=True, slots=True)
class Round:
    """What one round took."""

    seconds: float
    """Of the wall clock, with drawing the cohort, reading its groups and aggregating."""
    reference_seconds: float
    """Of these, for the frozen base model's log-probabilities."""
    tokens: int
    """That were trained on."""
    resident_bytes: int
    """Of the process, after it."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What a population's rounds took."""

    clients: int
    file_bytes: int
    open_seconds: float
    """To open the file and read who is in it."""
    start_seconds: float
    """From the call to the first round: making the nodes, and asking each which client it is."""
    bytes_before: int
    """Resident when the model was loaded and nothing trained."""
    peak_bytes: int
    """The most that was resident in the measured rounds."""
    rounds: tuple[Round, ...]
    """Those that were measured."""

    def summary(self) -> dict[str, float]:
        """Return one line of the table; seconds are medians over the rounds."""
        trained = [(r.seconds - r.reference_seconds) / r.tokens * 1e3 for r in self.rounds]
        return {
            "clients": self.clients,
            "seconds_of_a_round": statistics.median(r.seconds for r in self.rounds),
            "of_these_reference": statistics.median(r.reference_seconds for r in self.rounds),
            "tokens_of_a_round": statistics.median(r.tokens for r in self.rounds),
            "seconds_for_1000_tokens": statistics.median(trained),
            "peak_gigabytes": self.peak_bytes / 1e9,
            "growth_in_gigabytes": self._growth / 1e9,
            "gigabytes_before": self.bytes_before / 1e9,
            "seconds_to_open": self.open_seconds,
            "seconds_to_start": self.start_seconds,
            "file_gigabytes": self.file_bytes / 1e9,
        }

    @property
    def _growth(self) -> int:
        return self.rounds[-1].resident_bytes - self.rounds[0].resident_bytes


class TimedScore:
    """Scores, and remembers how long that took.

    Args:
        score: What does the work.
    """

    def __init__(self, score: ReferenceScore) -> None:
        self._score = score
        self.seconds = 0.0

    def __call__(self, branches: Sequence[Branch]) -> Tensor:
        """Score completions."""
        started = time.perf_counter()
        found = self._score(branches)
        self.seconds += time.perf_counter() - started
        return found


class Watch:
    """Notes what each round took, when told that it is over."""

    def __init__(self, trainer: LaneTrainer, score: TimedScore) -> None:
        self._trainer, self._score = trainer, score
        self.rounds: list[Round] = []
        self.start_seconds = 0.0
        self._made = self._last = time.perf_counter()
        self._tokens, self._reference_seconds = 0, 0.0

    def __call__(self, record: RoundRecord) -> None:
        """Note a round; where it ends the warm-up, let Linux look for the most memory anew."""
        now = time.perf_counter()
        if not self.rounds:
            self._last = now - record.seconds
            self.start_seconds = self._last - self._made
        if record.failed:
            raise RuntimeError(f"round {record.round_num}: clients failed: {record.failed}")
        tokens, seconds = self._trainer.count.tokens, self._score.seconds
        self.rounds.append(
            Round(
                now - self._last,
                seconds - self._reference_seconds,
                tokens - self._tokens,
                resident("VmRSS"),
            )
        )
        self._tokens, self._reference_seconds = tokens, seconds
        if len(self.rounds) == WARM_UP:
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        self._last = time.perf_counter()


def resident(name: str) -> int:
    """Return bytes of this process: ``VmRSS`` now, ``VmHWM`` at most."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split(f"{name}:")[1].split()[0]) * 1024


def configuration(*settings: str) -> Experiment:
    """Return the quick start's configuration on a CPU, with all clients in training."""
    always = ("clients.unseen_share=0", "base_model.device=cpu")
    return load_config("quickstart.yaml", [*always, *settings])


def make_store(size: int, path: Path) -> None:
    """Generate a small world of some size, and write its clients' groups to a file."""
    with tempfile.TemporaryDirectory() as folder:
        generate_small_world(Path(folder), seed=SEED, num_people=size)
        config = configuration(f"corpus.folder={folder}/redial")
        population = populate(config, read_corpus(config))
    base = load_base_model(config.base_model.name, device="cpu")
    build_groups(config, population, make_writer(config.prompt, base), path, Silent())


def measure(path: Path, *, cohort_size: int, num_rounds: int) -> Measured:
    """Train rounds of a population whose groups are in a file, in this process."""
    config = configuration()
    base = load_base_model(config.base_model.name, device="cpu")
    policy = attach_adapter(base.model, **config.adapter.model_dump(), seed=SEED)
    started = time.perf_counter()
    store = GroupStore.open(path)
    open_seconds = time.perf_counter() - started
    decoder = LaneDecoder(policy)
    score = TimedScore(reference_scorer(decoder, PASS_BYTES))
    with tempfile.TemporaryDirectory() as folder:
        trainer = LaneTrainer(
            decoder,
            store,
            config.objective,
            ReferenceColumn(score, Path(folder)),
            steps=LocalSteps(local_steps=LOCAL_STEPS, groups_per_step=GROUPS_PER_STEP),
            seed=SEED,
            memory_bytes=PASS_BYTES,
        )
        bytes_before = resident("VmRSS")
        watch = Watch(trainer, score)
        rounds = Rounds(
            algorithm=FedAvg(),
            initial=adapter_state(policy),
            num_rounds=WARM_UP + num_rounds,
            cohort_size=cohort_size,
            seed=SEED,
            learning_rate=lambda round_num: config.training.learning_rate,
            timeout=TIMEOUT,
            on_round=watch,
        )
        app = CohortApp(LocalClients(trainer, FedAvg()))
        run_rounds(FlowerTransport(LocalGrid(app, sorted(store))), rounds)
        peak = resident("VmHWM")
    return Measured(
        clients=len(store),
        file_bytes=path.stat().st_size,
        open_seconds=open_seconds,
        start_seconds=watch.start_seconds,
        bytes_before=bytes_before,
        peak_bytes=peak,
        rounds=tuple(watch.rounds[WARM_UP:]),
    )


def bench(sizes: Sequence[int], folder: Path, cohort_size: int, num_rounds: int) -> dict[str, Any]:
    """Measure every size in a process of its own."""
    lines: list[dict[str, float]] = []
    for size in sizes:
        path = folder / f"clients-{size}.arrow"
        print(f"{size} clients", file=sys.stderr)
        if not path.exists():
            _run("--make", str(size), str(path))
        found = _run(
            *("--measure", str(path)),
            *("--cohort-size", str(cohort_size)),
            *("--rounds", str(num_rounds)),
        )
        lines.append(json.loads(found))

    def ratio(name: str) -> float:
        values = [line[name] for line in lines]
        return max(values) / min(values)

    return {
        "cohort_size": cohort_size,
        "rounds": num_rounds,
        "local_steps": LOCAL_STEPS,
        "groups_per_step": GROUPS_PER_STEP,
        "populations": lines,
        "largest_over_smallest": {
            name: ratio(name) for name in ("seconds_for_1000_tokens", "peak_gigabytes")
        },
    }


def _run(*arguments: str) -> str:
    command = [sys.executable, __file__, *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def print_table(measured: dict[str, Any]) -> None:
    """Print what was measured in Markdown; the ratio is that of the largest to the smallest."""
    lines, ratios = measured["populations"], measured["largest_over_smallest"]
    print("| what | " + " | ".join(f"{line['clients']:,}" for line in lines) + " | ratio |")
    print("|---" * (len(lines) + 2) + "|")
    for name in lines[0]:
        values = [line[name] for line in lines]
        shown = " | ".join(f"{each:,.0f}" if each >= 1000 else f"{each:.4g}" for each in values)
        ratio = f"{ratios[name]:.3f}" if name in ratios else ""
        print(f"| {name.replace('_', ' ')} | {shown} | {ratio} |")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print one table, or one JSON object; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one object instead")
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[100, 1000, 10_000], help="clients of populations"
    )
    parser.add_argument("--cohort-size", type=int, default=32, help="(default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=8, help="to measure (default: %(default)s)")
    parser.add_argument("--folder", type=Path, help="where files of groups are kept and reused")
    parser.add_argument("--make", nargs=2, metavar=("SIZE", "FILE"), help="only make one file")
    parser.add_argument("--measure", type=Path, metavar="FILE", help="only measure one, as JSON")
    options = parser.parse_args(arguments)
    if options.rounds < 1 or options.cohort_size < 1:
        parser.error("--rounds and --cohort-size must be at least 1")
    try:
        if options.make:
            make_store(int(options.make[0]), Path(options.make[1]))
        elif options.measure:
            found = measure(
                options.measure, cohort_size=options.cohort_size, num_rounds=options.rounds
            )
            print(json.dumps(found.summary()))
        else:
            with tempfile.TemporaryDirectory() as temporary:
                folder = options.folder or Path(temporary)
                folder.mkdir(parents=True, exist_ok=True)
                measured = bench(options.sizes, folder, options.cohort_size, options.rounds)
            if options.json:
                print(json.dumps(measured))
            else:
                print(f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores\n")
                print_table(measured)
    except (PkgllmError, ValueError) as error:
        print(f"bench_population: {error}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        return error.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
