"""Runs in numbers, made by hand."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from pkgllm.report.run_report import RunSummary

_MODELS = ("tuned", "base", "popularity", "item_knn", "ease")


def spread(mean: float, half: float) -> dict[str, float]:
    return {"mean": mean, "min": mean - half, "max": mean + half, "sd": half / 2}


def round_record(round_num: int, **more: Any) -> dict[str, Any]:
    """A round without a loss, as a private run records it."""
    return {
        "round_num": round_num,
        "cohort": ["a", "b"],
        "failed": {},
        "update_norm": 1 / round_num,
        "update_norms": spread(2 / round_num, 0.5 / round_num),
        "update_cosines": spread(0.5, 0.125),
        "bytes_down": 1500,
        "bytes_up": 2_000_000,
        "seconds": 2.0,
        **more,
    }


def summary(**changes: Any) -> RunSummary:
    generator = np.random.default_rng(0)
    draws: dict[str, Callable[[], list[float]]] = {
        "hits@10": lambda: generator.choice([0.0, 0.5, 1.0], 100).tolist(),
        "mrr": lambda: (1 / generator.integers(1, 900, 100)).tolist(),
    }
    rounds = tuple(round_record(n, loss=1 + math.cos(n) / 4) for n in range(1, 5))
    parts: dict[str, Any] = {
        "title": "first: kto, federated, base-tiny",
        "facts": (("mode", "federated"), ("seed", "0")),
        "mode": "federated",
        "planned": 4,
        "rounds": rounds,
        "losses": (),
        "validations": tuple(
            {"round_num": n, "clients": 3, "queries": 8, "hits@10": 0.1 * n, "mrr": 0.05 / n}
            for n in (2, 4)
        ),
        "results": None,
        "own": {
            metric: {model: sorted(draw()) for model in _MODELS} for metric, draw in draws.items()
        },
        "missing": (),
    }
    return RunSummary(**{**parts, **changes})
