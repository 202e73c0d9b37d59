"""What the tests of finished runs share: the modes, and how files are read."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pkgllm.config.schema import Experiment
from pkgllm.report.evaluation import Report

MODES: Mapping[str, dict[str, Any]] = {
    "federated": {"name": "federated", "rounds": 2, "cohort_size": 2},
    "centralized": {"name": "centralized", "rounds": 2, "cohort_size": 2},
    "local": {"name": "local", "rounds": 2},
}

Finished = tuple[Experiment, Path, Report]


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def read_metrics(path: Path) -> list[dict[str, Any]]:
    lines = (path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def predictions(path: Path) -> list[dict[str, Any]]:
    lines = (path / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def files_below(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
