"""Folders of runs with the answers that a test wants, without training anything."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pkgllm.config.load import dump_config, load_config

Ranks = Mapping[str, Sequence[float]]
"""By client."""


def write_run(
    folder: Path,
    models: Mapping[str, Ranks],
    *,
    seed: int = 0,
    overrides: Sequence[str] = (),
    candidates: int = 100,
    unseen: Sequence[str] = (),
    failed: Sequence[tuple[str, str]] = (),
    digests: Mapping[str, str] | None = None,
) -> Path:
    """Write what ``pkgllm compare`` reads; each client's held-out items are named after it.

    ``failed`` holds pairs of a model and a client.
    """
    folder.mkdir(parents=True)
    config = load_config("quickstart.yaml", [f"seed={seed}", *overrides])
    (folder / "config.yaml").write_text(dump_config(config))
    made = {"digests": {"split": f"of seed {seed}", **(digests or {})}}
    (folder / "provenance.json").write_text(json.dumps(made))
    rows = [
        {
            "client": client,
            "seen_in_training": client not in unseen,
            "held_out": [f"{client}{index}" for index in range(len(ranks))],
            "candidates": candidates,
            "models": {
                model: {
                    "ranks": list(by_client[client]),
                    "top": [],
                    "failed": (model, client) in failed,
                }
                for model, by_client in models.items()
            },
        }
        for client, ranks in next(iter(models.values())).items()
    ]
    write_rows(folder, rows)
    return folder


def read_rows(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "predictions.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    return [json.loads(line) for line in lines]


def write_rows(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / "predictions.jsonl").write_text("".join(lines), encoding="utf-8")


def change_row(folder: Path, number: int, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the record on a line, counted from 1."""
    rows = read_rows(folder)
    change(rows[number - 1])
    write_rows(folder, rows)


def random_ranks(seed: int, *, num_clients: int, skill: float) -> Ranks:
    """Ranks from 1 to 90 in one to four queries for each client; more skill, lower ranks."""
    generator = np.random.default_rng(seed)
    return {
        f"client{index}": np.ceil(90 * generator.random(1 + index % 4) ** skill).clip(1).tolist()
        for index in range(num_clients)
    }
