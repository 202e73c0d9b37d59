"""How updates become the next adapter: one section for each aggregator.

The equations are in docs/aggregation.md. The defaults are made for LoRA, whose values move by
1e-5 to 1e-3 in a round.
"""

from typing import Annotated, Literal

from pydantic import Field

from pkgllm.config.section import NotNegative, NotNegativeFloat, PositiveFloat, Section, Share

_TrimmedShare = Annotated[float, Field(ge=0, lt=0.5)]


class FedAvg(Section):
    """Federated averaging (McMahan et al. 2017)."""

    name: Literal["fedavg"]


class FedProx(Section):
    """Averaging of clients that are held to what they received (Li et al. 2020)."""

    name: Literal["fedprox"]
    proximal_mu: NotNegativeFloat = 0.01
    """How strongly; 0 is ``fedavg``."""


class Scaffold(Section):
    """Averaging of clients whose drift control variates correct (Karimireddy et al. 2020).

    Needs ``training.optimizer`` sgd, no weight decay and equal weights; sends twice as much down
    as ``fedavg``, and as much up.
    """

    name: Literal["scaffold"]
    server_learning_rate: PositiveFloat = 1.0
    """Factor of the mean step."""


class FedAvgM(Section):
    """Averaging with momentum at the server (Hsu et al. 2019)."""

    name: Literal["fedavgm"]
    server_learning_rate: PositiveFloat = 0.1
    """Factor of the step; steps that agree add up to
    ``server_learning_rate / (1 - server_momentum)`` of their mean."""
    server_momentum: Share = 0.9
    """Share of the last step that is taken again."""


class FedAdagrad(Section):
    """Adagrad at the server (Reddi et al. 2021)."""

    name: Literal["fedadagrad"]
    server_learning_rate: PositiveFloat = 1e-3
    """Step size; as large as ``tau`` it is neutral: steps well below ``tau`` are taken as in
    ``fedavg``, larger ones are held back."""
    tau: PositiveFloat = 1e-3
    """Steps of a value well below it are not told apart."""


class FedYogi(FedAdagrad):
    """Yogi at the server (Reddi et al. 2021)."""

    name: Literal["fedyogi"]  # type: ignore[assignment]  # another tag, the same keys and two more
    beta_1: Share = 0.9
    """Decay of the mean of steps."""
    beta_2: Share = 0.99
    """Decay of the mean of squared steps."""


class FedAdam(FedYogi):
    """Adam at the server (Reddi et al. 2021)."""

    name: Literal["fedadam"]  # type: ignore[assignment]  # another tag, the same keys


class FedMedian(Section):
    """The median of each value over the cohort (Yin et al. 2018). Needs equal weights."""

    name: Literal["fedmedian"]


class FedTrimmedAvg(Section):
    """The mean of each value without its extremes (Yin et al. 2018). Needs equal weights."""

    name: Literal["fedtrimmedavg"]
    trimmed_share: _TrimmedShare = 0.2
    """Share of the cohort that is left out at each end, rounded down to clients."""


class Krum(Section):
    """The one update that is closest to the others (Blanchard et al. 2017). Needs equal weights."""

    name: Literal["krum"]
    num_malicious: NotNegative
    """Clients of a cohort that may send anything; ``mode.cohort_size`` must be at least twice as
    many and 3 more."""


Strategy = Annotated[
    FedAvg
    | FedProx
    | Scaffold
    | FedAvgM
    | FedAdagrad
    | FedYogi
    | FedAdam
    | FedMedian
    | FedTrimmedAvg
    | Krum,
    Field(discriminator="name"),
]
