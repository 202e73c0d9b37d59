"""A whole federation in this process: the server, and clients who train with a given trainer."""

from collections.abc import Callable, Sequence
from typing import Any

from flwr.app import Message

from pkgllm.federation.algorithms.client_controls import ClientControls
from pkgllm.federation.algorithms.strategies import make_strategy
from pkgllm.federation.client_noise import ClientNoise
from pkgllm.federation.flower.client_app import CohortApp
from pkgllm.federation.flower.records import Weighting
from pkgllm.federation.flower.server_app import make_server_app, run_in_process
from pkgllm.federation.rounds import Rounds
from pkgllm.lm.adapter import AdapterState
from pkgllm.training.local import CohortTrainer


def federate(
    *,
    trainer: CohortTrainer,
    clients: Sequence[str],
    controls: ClientControls | None = None,
    noise: ClientNoise | None = None,
    weighting: Weighting = "uniform",
    report_private_metrics: bool = False,
    on_message: Callable[[Message], None] | None = None,
    **rounds: Any,
) -> AdapterState:
    """Run some :class:`Rounds`, by the weighted mean unless told otherwise."""
    cohort_app = CohortApp(
        trainer,
        weighting=weighting,
        report_private_metrics=report_private_metrics,
        controls=controls,
        noise=noise,
    )
    done = Rounds(**{"strategy": make_strategy("fedavg"), "timeout": 3600.0, **rounds})
    return run_in_process(make_server_app(done), cohort_app, clients, on_message=on_message)
