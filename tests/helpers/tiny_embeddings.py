"""Configurations of embeddings that train in a second on the tiny corpus."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pkgllm.config.schema import EmbeddingExperiment
from pkgllm.progress import Advance

SCHEDULE = {"epochs": 3, "batch_size": 64, "num_negatives": 2, "learning_rate": 0.02}
EMBEDDINGS: dict[str, dict[str, Any]] = {
    "hake": {"name": "hake", "dim": 4, "schedule": SCHEDULE},
    "kbgat": {
        "name": "kbgat",
        "transe_dim": 4,
        "dim": 2,
        "filters": 2,
        "transe_schedule": SCHEDULE,
        "attention_schedule": {**SCHEDULE, "batch_size": None, "epochs": 2},
        "decoder_schedule": {**SCHEDULE, "epochs": 2},
    },
    "complex": {"name": "complex", "dim": 4, "schedule": SCHEDULE},
    "rotate": {"name": "rotate", "dim": 4, "schedule": SCHEDULE},
    "tucker": {"name": "tucker", "dim": 4, "relation_dim": 2, "schedule": SCHEDULE},
    "comp_gcn": {"name": "comp_gcn", "dim": 4, "schedule": SCHEDULE},
    "node_piece": {"name": "node_piece", "dim": 4, "schedule": SCHEDULE},
}


def tiny_embedding(data: Path, name: str = "hake", **sections: Any) -> EmbeddingExperiment:
    """Clients, split and evaluation are those of ``tiny_experiment``."""
    tree: dict[str, Any] = {
        "seed": 7,
        "corpus": {"name": "redial", "folder": str(data)},
        "clients": {"unseen_share": 0.2},
        "embedding": EMBEDDINGS[name],
        "training": {"device": "cpu"},
        "fold_in": {"steps": 3, "num_negatives": 2},
        "evaluation": {"bootstrap_resamples": 100},
    }
    for section, keys in sections.items():
        whole = not isinstance(keys, dict) or "name" in keys
        tree[section] = keys if whole else {**tree.get(section, {}), **keys}
    return EmbeddingExperiment.model_validate(tree)


class Killed(BaseException):
    """No error that anybody would handle."""


class Deadly:
    """Progress that kills the work once so many units of a piece of it are done."""

    def __init__(self, description: str, units: int) -> None:
        self._description = description
        self._units = units

    @contextmanager
    def track(self, description: str, total: int) -> Iterator[Advance]:
        done = 0

        def advance(detail: str = "") -> None:
            nonlocal done
            done += 1
            if (description, done) == (self._description, self._units):
                raise Killed

        yield advance
