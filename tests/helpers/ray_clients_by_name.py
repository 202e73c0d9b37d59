"""Quadratic clients for Ray's actors: what a client does stands in its name."""

import os
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers.quadratic_clients import SECRET, QuadraticClients, adapter_at
from pkgllm.federation.algorithms.fedavg import FedAvg
from pkgllm.federation.clients import LocalClients
from pkgllm.federation.flower.ray.clients import ActorClients
from pkgllm.lm.adapter import AdapterState
from pkgllm.training.local import TrainedClient

INTERRUPTED = 70
"""Exit code after Ctrl-C; of one that nobody catches, Ray's hook makes another than Python."""


class NamedClients(QuadraticClients):
    """Clients called ``raises``, ``dies`` or ``sleeps`` do so; all note in which process."""

    def __init__(self, targets: Mapping[str, float], notes: Path) -> None:
        super().__init__(targets)
        self.notes = notes

    def train(
        self, client: str, adapter: AdapterState, learning_rate: float
    ) -> TrainedClient | Exception:
        (self.notes / f"{client}-{os.getpid()}").touch()
        if client == "raises":
            return ValueError(SECRET)
        if client == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        if client == "sleeps":
            time.sleep(300)
        return super().train(client, adapter, learning_rate)


@dataclass(frozen=True)
class MakeNamed:
    """Builds them inside an actor."""

    targets: tuple[tuple[str, float], ...]
    notes: Path
    building_fails: bool = False

    def __call__(self) -> ActorClients:
        if self.building_fails:
            raise ValueError(SECRET)
        (self.notes / f"built-{os.getpid()}").touch()
        # In any order: a partition is a position in the sorted order.
        clients = tuple(client for client, _ in reversed(self.targets))
        trainer = NamedClients(dict(self.targets), self.notes)
        return ActorClients(LocalClients(trainer, FedAvg()), clients)


def run_named(
    targets: Mapping[str, float], notes: Path, *, building_fails: bool = False, **changes: Any
) -> AdapterState:
    """Run two rounds of all of them on Ray."""
    from pkgllm.federation.flower.ray.runtime import RayResources, run_on_ray
    from pkgllm.federation.rounds import Rounds

    resources = changes.pop("resources", RayResources(cpus=2))
    server: dict[str, Any] = {
        "algorithm": FedAvg(),
        "initial": adapter_at(0.0),
        "num_rounds": 2,
        "cohort_size": len(targets),
        "seed": 1,
        "learning_rate": lambda round_num: 0.5,
        "timeout": 300.0,
    }
    return run_on_ray(
        Rounds(**(server | changes)),
        MakeNamed(tuple(targets.items()), notes, building_fails),
        num_clients=len(targets),
        resources=resources,
        log=notes / "clients.log",
    )


if __name__ == "__main__":
    try:
        run_named({"a": 1.0, "sleeps": 2.0}, Path(sys.argv[1]))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
