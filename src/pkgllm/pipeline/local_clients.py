"""The clients' side of a run, as its configuration says."""

from pathlib import Path

from pkgllm.config import schema
from pkgllm.federation.client_noise import ClientNoise
from pkgllm.federation.client_state import ClientStates
from pkgllm.federation.clients import LocalClients
from pkgllm.training.local import CohortTrainer

STATES = "client_states"
"""Folder of what clients keep between rounds. Private, and gone when training is done."""


def make_clients(
    config: schema.Experiment,
    mode: schema.Federated,
    trainer: CohortTrainer,
    folder: Path,
    noise: ClientNoise | None,
) -> LocalClients:
    """Return what trains the clients of a run.

    Args:
        config: The run's configuration.
        mode: Its mode.
        trainer: Trains them.
        folder: In which the clients' states have a folder.
        noise: What protects their updates, where the server counts on it.
    """
    return LocalClients(
        trainer,
        mode.strategy,
        local_steps=config.training.local_steps,
        weighting=mode.weighting,
        report_private_metrics=config.privacy.report_private_metrics,
        states=ClientStates(folder / STATES),
        noise=noise,
    )
