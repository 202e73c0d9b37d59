"""Aggregators, one file each: settings, the server's and the clients' side, on tensors."""

from pkgllm.federation.algorithm import Algorithm
from pkgllm.registry import Registry

ALGORITHMS = Registry[Algorithm](
    "mode.strategy",
    "pkgllm.algorithms",
    {
        "fedavg": "pkgllm.federation.algorithms.fedavg:FedAvg",
        "fedprox": "pkgllm.federation.algorithms.fedprox:FedProx",
        "feddyn": "pkgllm.federation.algorithms.feddyn:FedDyn",
        "scaffold": "pkgllm.federation.algorithms.scaffold:Scaffold",
        "fedavgm": "pkgllm.federation.algorithms.fedavgm:FedAvgM",
        "fedadagrad": "pkgllm.federation.algorithms.fedadagrad:FedAdagrad",
        "fedyogi": "pkgllm.federation.algorithms.fedyogi:FedYogi",
        "fedadam": "pkgllm.federation.algorithms.fedadam:FedAdam",
        "fedmedian": "pkgllm.federation.algorithms.fedmedian:FedMedian",
        "fedtrimmedavg": "pkgllm.federation.algorithms.fedtrimmedavg:FedTrimmedAvg",
        "krum": "pkgllm.federation.algorithms.krum:Krum",
    },
)
