"""A whole federation in this process: the server, and clients who train with a given trainer."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from flwr.app import Message

from pkgllm.federation.algorithm import Algorithm
from pkgllm.federation.algorithms.fedavg import FedAvg
from pkgllm.federation.client_noise import ClientNoise
from pkgllm.federation.client_state import ClientStates
from pkgllm.federation.clients import LocalClients, Weighting
from pkgllm.federation.flower.client_app import CohortApp
from pkgllm.federation.flower.grid import LocalGrid
from pkgllm.federation.flower.transport import FlowerTransport
from pkgllm.federation.messages import Delivery, Instruction
from pkgllm.federation.rounds import Rounds, run_rounds
from pkgllm.lm.adapter import AdapterState
from pkgllm.training.local import CohortTrainer


class LossyTransport(FlowerTransport):
    """Loses the replies of some clients after they have moved on."""

    def __init__(self, grid: LocalGrid, lost: Collection[str]) -> None:
        super().__init__(grid)
        self.lost = lost

    def exchange(self, instructions: Mapping[str, Instruction], timeout: float) -> Delivery:
        delivery = super().exchange(instructions, timeout)
        kept = {name: reply for name, reply in delivery.replies.items() if name not in self.lost}
        return replace(delivery, replies=kept)


def federate(
    *,
    trainer: CohortTrainer,
    clients: Sequence[str],
    connected: Sequence[str] | None = None,
    algorithm: Algorithm | None = None,
    local_steps: int = 1,
    states: ClientStates | None = None,
    noise: ClientNoise | None = None,
    weighting: Weighting = "uniform",
    report_private_metrics: bool = False,
    lost: Collection[str] = (),
    on_message: Callable[[Message], None] | None = None,
    **rounds: Any,
) -> AdapterState:
    """Run some :class:`Rounds`, by the weighted mean unless told otherwise.

    The replies of ``lost`` clients do not arrive.
    """
    algorithm = algorithm or FedAvg()
    app = CohortApp(
        LocalClients(
            trainer,
            algorithm,
            local_steps=local_steps,
            weighting=weighting,
            report_private_metrics=report_private_metrics,
            states=states,
            noise=noise,
        )
    )
    grid = LocalGrid(app, clients if connected is None else connected, on_message=on_message)
    settings = {"timeout": 3600.0, "clients": clients, "local_steps": local_steps, **rounds}
    return run_rounds(LossyTransport(grid, lost), Rounds(algorithm=algorithm, **settings))


def quadratic_rounds(trainer: Any, **changes: Any) -> AdapterState:
    """Run one round of all of these clients from 0 with half a step, unless told otherwise."""
    from helpers.quadratic_clients import adapter_at

    settings = {
        "clients": list(trainer.targets),
        "initial": adapter_at(0.0),
        "num_rounds": 1,
        "cohort_size": len(trainer.targets),
        "seed": 0,
        "learning_rate": lambda round_num: 0.5,
        "local_steps": trainer.local_steps,
    }
    return federate(trainer=trainer, **(settings | changes))
