"""Federated preference tuning of small language models on personal knowledge graphs.

The names below are the public API; docs/api.md shows them at work. Each is imported when it is
first used, so that ``import pkgllm`` loads neither torch nor anything else.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pkgllm.api import (
        Run,
        compare,
        evaluate,
        load_config,
        load_run,
        read_graph,
        resume,
        sweep,
        train,
    )
    from pkgllm.assistant.recommend import Recommender

__version__ = "0.1.0"

_HOMES = {
    **dict.fromkeys(
        (
            "Run",
            "compare",
            "evaluate",
            "load_config",
            "load_run",
            "read_graph",
            "resume",
            "sweep",
            "train",
        ),
        "pkgllm.api",
    ),
    "Recommender": "pkgllm.assistant.recommend",
}

__all__ = [
    "Recommender",
    "Run",
    "__version__",
    "compare",
    "evaluate",
    "load_config",
    "load_run",
    "read_graph",
    "resume",
    "sweep",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'pkgllm' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
