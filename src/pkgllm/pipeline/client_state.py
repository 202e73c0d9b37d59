"""What clients keep from round to round, in files of their own."""

from collections.abc import Sequence
from pathlib import Path

from peft import PeftModel

from pkgllm.config import schema
from pkgllm.federation.algorithms.client_controls import ClientControls
from pkgllm.federation.control_store import ControlStore
from pkgllm.lm.adapter import adapter_state

CONTROLS = "controls"
"""SCAFFOLD's control variates of the clients. Private, and gone when training is done."""


def make_controls(
    config: schema.Experiment, policy: PeftModel, clients: Sequence[str], folder: Path
) -> ClientControls | None:
    """Return the control variates of clients, where the strategy is SCAFFOLD.

    Args:
        config: The run's configuration.
        policy: Has the adapter's keys and shapes.
        clients: Ids of those that share the file.
        folder: Where the file is, or is made.

    Raises:
        RunError: If the file cannot be used.
    """
    mode = config.mode
    if mode.name != "federated" or mode.strategy.name != "scaffold":
        return None
    store = ControlStore(folder / CONTROLS, clients, adapter_state(policy))
    return ClientControls(store, local_steps=config.training.local_steps)
