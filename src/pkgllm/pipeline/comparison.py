"""Compare finished runs by what their folders hold; no model is loaded."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pkgllm.config.load import load_any_config
from pkgllm.evaluation.comparison import compare_runs
from pkgllm.evaluation.metrics import check_metrics
from pkgllm.pipeline.statement import privacy_statement
from pkgllm.privacy.statements import read_ranked_guarantee
from pkgllm.runs.folder import RunFolder
from pkgllm.runs.predictions import Predictions, check_same_queries, run_names
from pkgllm.runs.records import damage_named

COMPARED_METRICS = ("hits@10", "mrr")
"""What is compared unless other metrics are asked for."""


def compare(paths: Sequence[Path], metrics: Sequence[str] = COMPARED_METRICS) -> dict[str, Any]:
    """Compare the models of runs on the queries that all of them were asked.

    Args:
        paths: Folders of runs, or of evaluations made later.
        metrics: Names of metrics, each once.

    Returns:
        What :func:`pkgllm.evaluation.comparison.compare_runs` does.

    Raises:
        ConfigError: If no folder is given or one twice, a metric is unknown or given twice, or a
            run's configuration does not load.
        RunError: If a folder or a file in it is missing or damaged, or the queries differ.
    """
    check_metrics(metrics)
    with damage_named(", ".join(map(str, paths))):
        return compare_runs(read_runs(paths), metrics)


def read_runs(paths: Sequence[Path]) -> list[Predictions]:
    """Read folders of runs that were asked the same queries.

    Raises:
        ConfigError: As :func:`run_names` and :func:`read_predictions` do.
        RunError: As :func:`read_predictions` and :func:`check_same_queries` do.
    """
    runs = [
        read_predictions(path, name) for path, name in zip(paths, run_names(paths), strict=True)
    ]
    for run in runs[1:]:
        check_same_queries(runs[0], run)
    return runs


def read_predictions(path: Path, name: str) -> Predictions:
    """Read the folder of a run, or of an evaluation made later.

    Raises:
        RunError: If the folder or a file in it is missing, cannot be read or is damaged.
        ConfigError: If its configuration does not load.
        PrivacyError: If the record of its privacy is damaged.
    """
    run = RunFolder.open(path, needed=("config.yaml", "provenance.json", "predictions.jsonl"))
    config = load_any_config(str(run.config))
    settings = config.model_dump(mode="json", exclude={"seed", "output", "observation"})
    return Predictions.read(
        run,
        name=name,
        seed=config.seed,
        resamples=config.evaluation.bootstrap_resamples,
        settings=json.dumps(settings, sort_keys=True),
        privacy=privacy_statement(config, read_ranked_guarantee(path / "results.json")),
    )
