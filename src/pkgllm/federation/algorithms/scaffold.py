r"""SCAFFOLD: control variates take the drift out of local steps.

A client takes :math:`K` steps of plain gradient descent on corrected gradients, then renews its
control variate (option II):

.. math:: y \leftarrow y - \eta_l (g - c_i + c), \qquad
    c_i^+ = c_i - c + \frac{x - y}{K \eta_l}

and the server averages over the cohort :math:`S` of the :math:`N` clients:

.. math:: x \leftarrow x + \eta_g \operatorname{mean}_S (y_i - x), \qquad
    c \leftarrow c + \frac{|S|}{N} \operatorname{mean}_S (c_i^+ - c_i)

Since :math:`c_i^+ - c_i = -c - (y - x) / (K \eta_l)`, the server computes the second mean from the
first, and a client sends its update alone: half the traffic of the paper's algorithm, and :math:`c`
is known from what was sent anyway.

Source: Karimireddy et al. 2020, arXiv:1910.06378, algorithm 1.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Message,
    MessageType,
    MetricRecord,
    RecordDict,
)
from flwr.serverapp import Grid, strategy

from pkgllm.federation.algorithms.resumable import (
    WHOLE_COHORT,
    ResumableStrategy,
    StrategyState,
    pack,
    unpack,
)
from pkgllm.federation.flower.grid import CohortGrid
from pkgllm.federation.flower.records import ACCEPTED_ROUND, ARRAYS, CONFIG, CONTROL

_ACCEPTED = "accepted_rounds"


class Scaffold(strategy.FedAvg, ResumableStrategy):
    r"""The server's side. Updates must have equal weights.

    Args:
        clients: Ids of all training clients.
        local_steps: :math:`K`, of every client in every round.
        server_learning_rate: :math:`\eta_g`.
    """

    def __init__(
        self, *, clients: Sequence[str], local_steps: int, server_learning_rate: float
    ) -> None:
        super().__init__(**WHOLE_COHORT)
        self._local_steps = local_steps
        self._server_learning_rate = server_learning_rate
        self._accepted = dict.fromkeys(sorted(clients), 0)
        self._control: ArrayRecord | None = None
        self._sent = ArrayRecord()
        self._learning_rate = 0.0
        self._cohort: Mapping[int, str] = {}

    @property
    def accepted_rounds(self) -> Mapping[str, int]:
        """The last round in which each client's update was averaged; 0 for none."""
        return self._accepted

    @property
    def control(self) -> ArrayRecord | None:
        """The mean of all clients' control variates; None before the first round."""
        return self._control

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send the adapter and the mean control variate, and each client its accepted round.

        Raises:
            TypeError: If the grid does not know which client a node is.
        """
        if not isinstance(grid, CohortGrid):
            raise TypeError(f"Scaffold needs a CohortGrid, got {type(grid).__name__}")
        if self._control is None:
            self._control = ArrayRecord(
                {k: Array(np.zeros(tuple(v.shape), np.float32)) for k, v in arrays.items()}
            )
        self._sent, self._cohort = arrays, dict(grid.clients)
        self._learning_rate = float(config["learning_rate"])  # type: ignore[arg-type]
        return [
            Message(
                RecordDict(
                    {
                        ARRAYS: arrays,
                        CONTROL: self._control,
                        CONFIG: ConfigRecord(
                            {**config, ACCEPTED_ROUND: self._accepted.get(client, 0)}
                        ),
                    }
                ),
                node_id,
                MessageType.TRAIN,
            )
            for node_id, client in self._cohort.items()
        ]

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Take the server's step on the adapter and on the mean control variate."""
        replies = list(replies)
        mean, metrics = super().aggregate_train(server_round, replies)
        if mean is None:
            return None, metrics
        accepted = [self._cohort[reply.metadata.src_node_id] for reply in replies]
        return self._step(server_round, mean, accepted, len(accepted)), metrics

    def aggregate_noisy_mean(
        self, server_round: int, mean: Message, cohort: Sequence[str], expected_cohort: int
    ) -> ArrayRecord | None:
        """Take both steps from the noisy mean alone, as if the cohort had its expected size."""
        arrays, _ = super().aggregate_train(server_round, [mean])
        assert arrays is not None
        return self._step(server_round, arrays, cohort, expected_cohort)

    def _step(
        self, server_round: int, mean: ArrayRecord, accepted: Sequence[str], cohort_size: int
    ) -> ArrayRecord:
        assert self._control is not None
        share = cohort_size / len(self._accepted)
        per_step = 1 / (self._local_steps * self._learning_rate)
        after: dict[str, Array] = {}
        control: dict[str, Array] = {}
        for key in list(mean):
            before, old = self._sent[key].numpy(), self._control[key].numpy()
            step = mean.pop(key).numpy() - before
            control[key] = Array(np.asarray(old - share * (old + per_step * step)))
            after[key] = Array(np.asarray(before + self._server_learning_rate * step))
        self._control = ArrayRecord(control)
        self._accepted.update(dict.fromkeys(accepted, server_round))
        return ArrayRecord(after)

    def state_dict(self) -> StrategyState:
        """Return :math:`c` as ``control``, and ``accepted_rounds`` in order of client id."""
        state: StrategyState = {}
        if self._control is not None:
            state = pack(control={key: array.numpy() for key, array in self._control.items()})
        return state | {_ACCEPTED: np.array(list(self._accepted.values()), np.int64)}

    def load_state_dict(self, state: Mapping[str, np.ndarray], arrays: ArrayRecord) -> None:
        """See :class:`~pkgllm.federation.algorithms.resumable.ResumableStrategy`."""
        rounds = state.get(_ACCEPTED, np.zeros(0))
        if rounds.shape != (len(self._accepted),):
            raise ValueError(
                f"the state must hold {_ACCEPTED} of {len(self._accepted)} clients, got "
                f"{rounds.size}; resume with the same clients"
            )
        rest = {name: value for name, value in state.items() if name != _ACCEPTED}
        (mean,) = unpack(rest, ("control",), arrays)
        self._control = ArrayRecord({k: Array(v) for k, v in mean.items()}) if mean else None
        self._accepted = dict(zip(self._accepted, map(int, rounds), strict=True))
