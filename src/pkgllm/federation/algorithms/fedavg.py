r"""FedAvg: the weighted mean of the clients' adapters is the next adapter.

.. math:: x \leftarrow \sum_i w_i y_i

Source: McMahan et al. 2017, arXiv:1602.05629, algorithm 1.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from pkgllm.federation.algorithm import Algorithm


@dataclass(frozen=True, slots=True, kw_only=True)
class FedAvg(Algorithm):
    """Federated averaging (McMahan et al. 2017)."""

    citation: ClassVar[str] = "McMahan et al. 2017, arXiv:1602.05629, algorithm 1"

    name: Literal["fedavg"] = "fedavg"
