"""What every strategy of ours is: Flower's, for a cohort drawn beforehand, and resumable."""

from abc import ABC
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, Message
from flwr.serverapp.strategy import Strategy

from pkgllm.federation.flower.records import WEIGHT

StrategyState = dict[str, np.ndarray]
"""What a strategy remembers between rounds; the names are its own."""

WHOLE_COHORT: Mapping[str, Any] = {
    "fraction_train": 1.0,
    "fraction_evaluate": 0.0,
    "min_train_nodes": 1,
    "min_available_nodes": 1,
    "weighted_by_key": WEIGHT,
}
"""Arguments of Flower's strategies that make them address every client they are shown."""


class ResumableStrategy(Strategy, ABC):
    """A strategy that a fresh object can go on with, to the bit.

    This one remembers nothing; a strategy with a memory overrides both methods.
    """

    def aggregate_noisy_mean(
        self, server_round: int, mean: Message, cohort: Sequence[str], expected_cohort: int
    ) -> ArrayRecord | None:
        """Return the next adapter from the one noisy mean of a cohort's updates.

        Args:
            server_round: The round.
            mean: The update that stands for all, with weight 1.
            cohort: Clients whose updates are in it; nothing that is released may depend on them.
            expected_cohort: Clients in a round on average.
        """
        return self.aggregate_train(server_round, [mean])[0]

    def state_dict(self) -> StrategyState:
        """Return what must outlive the process, in copies; float32 or int64."""
        return {}

    def load_state_dict(self, state: Mapping[str, np.ndarray], arrays: ArrayRecord) -> None:
        """Go on from a state.

        Args:
            state: What :meth:`state_dict` of an object made with the same arguments returned.
            arrays: The adapter after the round in which it was taken.

        Raises:
            ValueError: If the state is of another strategy or of another adapter.
        """
        if state:
            raise ValueError(
                f"{type(self).__name__} remembers nothing, got a state of {len(state)} arrays; "
                "resume with the strategy that made it"
            )


def pack(**parts: Mapping[str, np.ndarray] | None) -> StrategyState:
    """Return a state of named parts that each hold an array for every key of an adapter.

    Example:
        >>> sorted(pack(m={"a": np.zeros(1), "b": np.ones(2)}, v=None))
        ['m/a', 'm/b']
    """
    return {
        f"{name}/{key}": value.copy()
        for name, part in parts.items()
        for key, value in (part or {}).items()
    }


def unpack(
    state: Mapping[str, np.ndarray], names: tuple[str, ...], arrays: ArrayRecord
) -> list[dict[str, np.ndarray] | None]:
    """Return the parts that :func:`pack` joined, in order of names; None for one without arrays.

    Raises:
        ValueError: If a part has other keys or shapes than the adapter, or there are other parts.

    Example:
        >>> from pkgllm.federation.flower.records import to_record
        >>> import torch
        >>> unpack({"m/a": np.zeros(1)}, ("m", "v"), to_record({"a": torch.ones(1)}))
        [{'a': array([0.])}, None]
    """
    wanted = {key: tuple(array.shape) for key, array in arrays.items()}
    parts: dict[str, dict[str, np.ndarray]] = {name: {} for name in names}
    for full, value in state.items():
        name, _, key = full.partition("/")
        if name not in parts or wanted.get(key) != value.shape:
            raise ValueError(
                f"the state must hold {' and '.join(names)} of this adapter, got {full} of shape "
                f"{value.shape}; resume with the strategy and the adapter that made it"
            )
        parts[name][key] = np.array(value)
    for name, part in parts.items():
        if part and part.keys() != wanted.keys():
            raise ValueError(
                f"the state must hold {name} of all {len(wanted)} keys of the adapter, got "
                f"{len(part)}"
            )
    return [part or None for part in parts.values()]
