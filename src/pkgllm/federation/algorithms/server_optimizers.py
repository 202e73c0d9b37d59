r"""Server optimisers: the mean step of the clients is a pseudo-gradient.

.. math:: \Delta_t = \operatorname{mean}_i(y_i) - x_t

over the adapters :math:`y_i` that the clients send and :math:`x_t` that they received. The
arithmetic is Flower's; docs/aggregation.md says where it departs from the papers. What is ours:
the state is resumable, nothing is held in double precision, and arrays go as soon as they are used.
"""

from collections.abc import Iterable, Mapping

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid, strategy

from pkgllm.federation.algorithms.resumable import (
    WHOLE_COHORT,
    ResumableStrategy,
    StrategyState,
    pack,
    unpack,
)

Arrays = dict[str, np.ndarray]


class FedAvgM(strategy.FedAvgM, ResumableStrategy):
    r"""Averaging with momentum at the server.

    .. math:: v_t = \mu v_{t-1} - \Delta_t, \qquad x_{t+1} = x_t - \eta v_t

    Source: Hsu et al. 2019, arXiv:1909.06335, section 4.1.

    Args:
        server_learning_rate: :math:`\eta`.
        server_momentum: :math:`\mu`; with 0 and a rate of 1 this is FedAvg.
    """

    def __init__(self, *, server_learning_rate: float, server_momentum: float) -> None:
        super().__init__(
            **WHOLE_COHORT,
            server_learning_rate=server_learning_rate,
            server_momentum=server_momentum,
        )
        self._momenta: Arrays = {}

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Address the cohort; steps are counted from what it is sent, also in a resumed run."""
        self.current_arrays = arrays
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Average, and take the step key by key, so that no second adapter is held for it."""
        mean, metrics = strategy.FedAvg.aggregate_train(self, server_round, replies)
        if mean is None or not self.server_opt:
            return mean, metrics
        assert self.current_arrays is not None
        after: dict[str, Array] = {}
        for key in list(mean):
            before = self.current_arrays[key].numpy()
            step = before - mean.pop(key).numpy()
            if key in self._momenta:
                step = self.server_momentum * self._momenta[key] + step
            if self.server_momentum > 0:
                self._momenta[key] = step
            after[key] = Array(np.asarray(before - self.server_learning_rate * step))
        return ArrayRecord(after), metrics

    def state_dict(self) -> StrategyState:
        """Return :math:`v` as ``momentum``."""
        return pack(momentum=self._momenta)

    def load_state_dict(self, state: Mapping[str, np.ndarray], arrays: ArrayRecord) -> None:
        """See :class:`~pkgllm.federation.algorithms.resumable.ResumableStrategy`."""
        (momenta,) = unpack(state, ("momentum",), arrays)
        self._momenta = momenta or {}


class _Adaptive(ResumableStrategy):
    """What the three adaptive optimisers share; stands before Flower's class."""

    current_arrays: Arrays | None
    m_t: Arrays | None
    v_t: Arrays | None
    beta_1: float

    def _compute_deltat_and_mt(
        self, aggregated_arrayrecord: ArrayRecord
    ) -> tuple[Arrays, Arrays, Arrays]:
        """Return the mean step, the first moment, and what has the adapter's shapes."""
        assert self.current_arrays is not None
        # Flower would hold the mean three times over.
        delta = {
            key: aggregated_arrayrecord.pop(key).numpy() - self.current_arrays[key]
            for key in list(aggregated_arrayrecord)
        }
        first = self.m_t or {key: np.zeros_like(value) for key, value in delta.items()}
        self.m_t = first
        for key, value in delta.items():
            first[key] = self.beta_1 * first[key] + (1 - self.beta_1) * value
        return delta, first, delta

    def state_dict(self) -> StrategyState:
        """Return the moments as ``m`` and ``v``."""
        return pack(m=self.m_t, v=self.v_t)

    def load_state_dict(self, state: Mapping[str, np.ndarray], arrays: ArrayRecord) -> None:
        """See :class:`~pkgllm.federation.algorithms.resumable.ResumableStrategy`."""
        self.m_t, self.v_t = unpack(state, ("m", "v"), arrays)


class FedAdagrad(_Adaptive, strategy.FedAdagrad):
    r"""Adagrad at the server.

    .. math:: v_t = v_{t-1} + \Delta_t^2, \qquad
        x_{t+1} = x_t + \eta \frac{\Delta_t}{\sqrt{v_t} + \tau}

    Source: Reddi et al. 2021, arXiv:2003.00295, algorithm 2, with :math:`\beta_1 = 0`.

    Args:
        server_learning_rate: :math:`\eta`.
        tau: :math:`\tau`, the step below which coordinates are not told apart.
    """

    def __init__(self, *, server_learning_rate: float, tau: float) -> None:
        super().__init__(**WHOLE_COHORT, eta=server_learning_rate, tau=tau)


class FedYogi(_Adaptive, strategy.FedYogi):
    r"""Yogi at the server: the second moment moves by a bounded amount.

    .. math:: m_t &= \beta_1 m_{t-1} + (1 - \beta_1) \Delta_t \\
        v_t &= v_{t-1} - (1 - \beta_2) \Delta_t^2 \operatorname{sign}(v_{t-1} - \Delta_t^2) \\
        x_{t+1} &= x_t + \eta \frac{m_t}{\sqrt{v_t} + \tau}

    Source: Reddi et al. 2021, arXiv:2003.00295, algorithm 2.

    Args:
        server_learning_rate: :math:`\eta`.
        beta_1: Decay of the first moment.
        beta_2: Decay of the second moment.
        tau: :math:`\tau`, the step below which coordinates are not told apart.
    """

    def __init__(
        self, *, server_learning_rate: float, beta_1: float, beta_2: float, tau: float
    ) -> None:
        super().__init__(
            **WHOLE_COHORT, eta=server_learning_rate, beta_1=beta_1, beta_2=beta_2, tau=tau
        )


class FedAdam(_Adaptive, strategy.FedAdam):
    r"""Adam at the server.

    .. math:: m_t &= \beta_1 m_{t-1} + (1 - \beta_1) \Delta_t, \qquad
        v_t = \beta_2 v_{t-1} + (1 - \beta_2) \Delta_t^2 \\
        x_{t+1} &= x_t + \eta \frac{\sqrt{1 - \beta_2^{t+1}}}{1 - \beta_1^{t+1}}
            \frac{m_t}{\sqrt{v_t} + \tau}

    Source: Reddi et al. 2021, arXiv:2003.00295, algorithm 2; the bias correction is Flower's.

    Args:
        server_learning_rate: :math:`\eta`.
        beta_1: Decay of the first moment.
        beta_2: Decay of the second moment.
        tau: :math:`\tau`, the step below which coordinates are not told apart.
    """

    def __init__(
        self, *, server_learning_rate: float, beta_1: float, beta_2: float, tau: float
    ) -> None:
        super().__init__(
            **WHOLE_COHORT, eta=server_learning_rate, beta_1=beta_1, beta_2=beta_2, tau=tau
        )

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Average and take Flower's step, which Flower itself leaves in double precision."""
        mean, metrics = strategy.FedAvg.aggregate_train(self, server_round, replies)
        if mean is None:
            return None, metrics
        assert self.current_arrays is not None
        delta, first, _ = self._compute_deltat_and_mt(mean)
        second = self.v_t or {key: np.zeros_like(value) for key, value in delta.items()}
        self.v_t = second
        power = server_round + 1.0
        rate = self.eta * np.sqrt(1 - np.power(self.beta_2, power))
        rate /= 1 - np.power(self.beta_1, power)
        after: dict[str, Array] = {}
        for key in list(delta):
            second[key] = self.beta_2 * second[key] + (1 - self.beta_2) * delta.pop(key) ** 2
            step = rate * first[key] / (np.sqrt(second[key]) + self.tau)
            after[key] = Array((self.current_arrays[key] + step).astype(np.float32))
        return ArrayRecord(after), metrics
