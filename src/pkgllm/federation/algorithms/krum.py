r"""Krum: the one update that stands closest to most others becomes the next adapter.

.. math:: s_i = \sum_{j \in N_i} \lVert u_i - u_j \rVert^2

over the :math:`n - f - 2` updates that are closest to :math:`u_i`, of :math:`n`, of which
:math:`f` may be malicious. The update of the lowest score is taken as it is.

Source: Blanchard et al. 2017, arXiv:1703.02757, section 4. Flower computes the distances of whole
adapters in single precision, as a difference of squares; between adapters that differ by a local
step that is mostly rounding, and it takes one more copy of every adapter.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid, strategy

from pkgllm.federation.algorithms.resumable import WHOLE_COHORT, ResumableStrategy
from pkgllm.federation.flower.records import ARRAYS

_CHUNK = 1 << 16
"""Values of each client that are compared at once."""


class Krum(strategy.FedAvg, ResumableStrategy):
    """Selects one update.

    Args:
        num_malicious: Updates of a cohort that may be anything; the promise needs a cohort of at
            least ``2 * num_malicious + 3``.
    """

    def __init__(self, *, num_malicious: int) -> None:
        super().__init__(**WHOLE_COHORT)
        self.num_malicious = num_malicious
        self._sent = ArrayRecord()

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Address the cohort, and remember what it is sent."""
        self._sent = arrays
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Return the selected update, and its metrics."""
        valid, _ = self._check_and_log_replies(replies, is_train=True)
        if not valid:
            return None, None
        updates = [message.content.array_records[ARRAYS] for message in valid]
        chosen = closest_to_most(squared_distances(updates, self._sent), self.num_malicious)
        return super().aggregate_train(server_round, [valid[chosen]])


def squared_distances(updates: Sequence[ArrayRecord], sent: ArrayRecord) -> np.ndarray:
    """Return the squared distances between updates. Shape ``(updates, updates)``, float64.

    Args:
        updates: Adapters.
        sent: The adapter from which they started; what they have in common is left out, so that
            it cannot round the differences away.
    """
    products = np.zeros((len(updates), len(updates)))
    for key in sent:
        start = sent[key].numpy().ravel()
        values = [update[key].numpy().ravel() for update in updates]
        for begin in range(0, start.size, _CHUNK):
            part = slice(begin, begin + _CHUNK)
            steps = np.stack([value[part] for value in values]).astype(np.float64) - start[part]
            products += steps @ steps.T
    norms = products.diagonal()
    return np.maximum(norms[:, None] + norms - 2 * products, 0)


def closest_to_most(distances: np.ndarray, num_malicious: int) -> int:
    """Return the index of the lowest score, the first of equals.

    Example:
        >>> far = np.array([0.0, 1.0, 2.0, 90.0])
        >>> closest_to_most((far[:, None] - far) ** 2, num_malicious=1)
        0
    """
    num_closest = max(1, len(distances) - num_malicious - 2)
    others = distances.copy()
    np.fill_diagonal(others, -1)
    # Each update is its own closest, which does not count.
    scores = np.sort(others, axis=1)[:, 1 : num_closest + 1].sum(axis=1)
    return int(scores.argmin())
