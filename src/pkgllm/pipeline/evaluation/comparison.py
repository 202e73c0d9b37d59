"""Compare finished runs by what their folders hold; no model is loaded."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pkgllm.config.load import load_any_config
from pkgllm.config.problems import did_you_mean
from pkgllm.errors import ConfigError, RunError
from pkgllm.evaluation.comparison import compare_runs
from pkgllm.evaluation.metrics import METRICS
from pkgllm.files import write_atomically
from pkgllm.pipeline.privacy.statement import privacy_statement
from pkgllm.privacy.statements import read_ranked_guarantee
from pkgllm.report.comparison import comparison_document
from pkgllm.report.to_markdown import markdown
from pkgllm.runs.folder import RunFolder
from pkgllm.runs.predictions import Predictions, check_same_queries, run_names

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
    _check_metrics(metrics)
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

    Args:
        path: The folder.
        name: What to call it.

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


def check_output(path: Path) -> None:
    """Raise, before any work, where a comparison cannot be written to a file of this name.

    Raises:
        ConfigError: If the name ends in neither ``.md`` nor ``.json``.
        RunError: If something is there already.
    """
    if path.suffix not in {".md", ".json"}:
        raise ConfigError(f"--output {path}: must end in .md or .json, got {path.suffix!r}")
    if path.exists():
        raise RunError(f"--output {path}: must be a new file, and exists; choose another name")


def write_comparison(results: Mapping[str, Any], path: Path) -> None:
    """Write a comparison as Markdown or JSON, whichever the file's name ends in.

    Args:
        results: As made by :func:`compare`.
        path: What :func:`check_output` accepts.

    Raises:
        RunError: If the file cannot be written.
    """
    if path.suffix == ".json":
        text = json.dumps(results, ensure_ascii=False, allow_nan=False, indent=2) + "\n"
    else:
        text = markdown(comparison_document(results))
    write_atomically(path, text)


def _check_metrics(metrics: Sequence[str]) -> None:
    for index, metric in enumerate(metrics):
        if metric not in METRICS:
            close = did_you_mean(metric, METRICS)
            raise ConfigError(
                f"--metric {metric}: must be one of {', '.join(METRICS)}"
                f"{f'; did you mean {close}?' if close else ''}"
            )
        if metric in metrics[:index]:
            raise ConfigError(f"--metric {metric}: must be given once, got it twice")
