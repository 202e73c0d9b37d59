"""Ways of training take turns over blocks of clients, and their results are compared."""

import gc
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch

from pkgllm.lm.adapter import AdapterState, update_norm
from pkgllm.training.local import CohortTrainer, TrainedClient
from training_bench.measure import Clock, Memory
from training_bench.workload import EXAMPLES_PER_CLIENT, LEARNING_RATE

BLOCKS = 4


@dataclass(slots=True)
class Way:
    """One way of training, with what was measured of it."""

    make: Callable[[], CohortTrainer]
    """Makes what trains, with nothing remembered of other rounds; is called before each block."""
    device: torch.device
    together: bool = False
    """Whether it gets the whole cohort at once, and not one client after the other."""
    remembers: bool = True
    """Whether a later round costs it less than the first."""
    first_round: Clock = field(init=False)
    later_round: Clock = field(init=False)
    memory: Memory = field(init=False)
    losses: dict[str, list[float]] = field(default_factory=dict)
    """Of each client, every time it was trained: the mean over its steps, before each."""
    adapter_difference: float = 0.0
    """Largest of any value, to the first way's adapter after the steps."""
    update_difference: float = 0.0
    """Largest length of the difference to the first way's update, as a share of that update's."""

    def __post_init__(self) -> None:
        self.first_round, self.later_round = Clock(self.device), Clock(self.device)
        self.memory = Memory(self.device)

    def train(self, clients: Sequence[str], start: AdapterState) -> dict[str, TrainedClient]:
        """Train clients from an adapter in a first round, and again in a later one."""
        found: dict[str, TrainedClient] = {}
        with self.memory.watch():
            trainer = self.make()
            for asked in [clients] if self.together else [[client] for client in clients]:
                adapters = dict.fromkeys(asked, start)
                run = partial(trainer, adapters, learning_rate=LEARNING_RATE)
                found |= self._noted(self.first_round.time(partial(run, round_num=1)))
                if self.remembers:
                    self._noted(self.later_round.time(partial(run, round_num=2)))
                # What is left of a client must not count as memory of the next.
                gc.collect()
        return found

    def _noted(self, trained: Mapping[str, TrainedClient | Exception]) -> dict[str, TrainedClient]:
        found = {}
        for client, done in trained.items():
            if isinstance(done, Exception):
                raise done
            self.losses.setdefault(client, []).append(done.loss)
            found[client] = done
        return found

    def compare(self, found: TrainedClient, expected: TrainedClient, start: AdapterState) -> None:
        """Take note of how far an adapter lies from the first way's."""
        gaps = (found.adapter[key] - expected.adapter[key] for key in start)
        largest = max(gap.abs().max().item() for gap in gaps)
        share = update_norm(expected.adapter, found.adapter) / update_norm(start, expected.adapter)
        self.adapter_difference = max(self.adapter_difference, largest)
        self.update_difference = max(self.update_difference, share)

    def summary(self, *, num_clients: int, steps: int) -> dict[str, float]:
        """Return speed, memory and differences, by name."""
        examples = EXAMPLES_PER_CLIENT * steps * (num_clients if self.together else 1)
        first = examples / statistics.median(self.first_round.seconds)
        later = self.later_round.seconds if self.remembers else self.first_round.seconds
        losses = [loss for of_client in self.losses.values() for loss in of_client]
        return {
            "mean_loss": statistics.mean(losses),
            "examples_per_second": first,
            "examples_per_second_later_rounds": examples / statistics.median(later),
            "peak_gigabytes": self.memory.peak_bytes / 1e9,
            "peak_gigabytes_above_start": self.memory.above_bytes / 1e9,
            "max_adapter_difference": self.adapter_difference,
            "update_difference_share": self.update_difference,
        }


def race(ways: Mapping[str, Way], clients: Sequence[str], start: AdapterState) -> float:
    """Let ways take turns over all clients, block after block.

    Args:
        ways: The first is what the others' adapters are compared with.
        clients: Ways that take one at a time meet each once in a round, the others in each block.
        start: The adapter that every client receives.

    Returns:
        The largest difference between the losses of a client in all its trainings.
    """
    for way in ways.values():
        way.make()(dict.fromkeys(clients[:1], start), round_num=0, learning_rate=LEARNING_RATE)
    for number, block in enumerate(np.array_split(np.array(clients), BLOCKS), start=1):
        expected: dict[str, TrainedClient] = {}
        for name, way in ways.items():
            found = way.train(clients if way.together else block.tolist(), start)
            for client in block.tolist():
                way.compare(found[client], expected.setdefault(client, found[client]), start)
            print(f"block {number} of {BLOCKS}: {name}", file=sys.stderr)
    losses = [[loss for way in ways.values() for loss in way.losses[c]] for c in clients]
    return max(max(of_client) - min(of_client) for of_client in losses)
