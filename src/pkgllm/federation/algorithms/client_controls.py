"""SCAFFOLD on the clients' side: what is added to gradients, and what is kept for the next time."""

from pkgllm.federation.control_store import ControlStore
from pkgllm.federation.flower.records import Instruction
from pkgllm.lm.adapter import AdapterState


class ClientControls:
    r"""Corrects the gradients of clients, and renews their control variates.

    See :mod:`~pkgllm.federation.algorithms.scaffold` for the equations.

    Args:
        store: Where control variates are kept.
        local_steps: :math:`K`, of every client in every round.
    """

    def __init__(self, store: ControlStore, *, local_steps: int) -> None:
        self._store = store
        self._local_steps = local_steps

    def correction(self, client: str, asked: Instruction) -> AdapterState:
        """Return :math:`c - c_i`, which is added to each gradient.

        Raises:
            FederationError: If the control variate that the server counts on is missing.
        """
        assert asked.control is not None
        own = self._store.read(client, accepted_round=asked.accepted_round)
        return {key: value - own[key] for key, value in asked.control.items()}

    def renew(
        self, client: str, asked: Instruction, correction: AdapterState, trained: AdapterState
    ) -> None:
        """Keep :math:`c_i^+`, which counts if the server accepts the update.

        Args:
            client: Whose.
            asked: What the client received.
            correction: As :meth:`correction` returned it.
            trained: The client's update.
        """
        per_step = 1 / (self._local_steps * asked.learning_rate)
        renewed = {
            key: (asked.adapter[key] - value) * per_step - correction[key]
            for key, value in trained.items()
        }
        self._store.write(
            client, renewed, round_num=asked.round_num, accepted_round=asked.accepted_round
        )
