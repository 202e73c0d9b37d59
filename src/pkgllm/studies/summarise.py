"""Sum up the runs of a study, point by point, as JSON, Markdown and a plot."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pkgllm.errors import RunError
from pkgllm.files import write_atomically
from pkgllm.report.study import study_document
from pkgllm.report.study_plots import StudyLines, draw_study
from pkgllm.report.to_markdown import markdown
from pkgllm.runs.folder import RunFolder
from pkgllm.runs.records import read_object
from pkgllm.studies.compare import RankedRuns, against_reference, finished
from pkgllm.studies.plan import PlannedRun, ranked_models
from pkgllm.studies.study import Point, Study
from pkgllm.studies.study_plan import StudyPlan

SUMMARY = "summary"
PLOT = "plot"

PRIVACY = {
    "unit": "unit",
    "epsilon": "epsilon",
    "share_epsilon": "share_epsilon",
    "delta": "delta",
    "relation": "neighboring_relation",
    "accountant": "accountant",
}
"""What a table shows of privacy, and where it stands in ``privacy`` of results.json."""


@dataclass(frozen=True, slots=True)
class _Finished:
    """A finished run."""

    seed: int
    path: Path
    results: Mapping[str, Any]
    seconds: float | None
    """Of training, all stretches of it."""


def write_summary(plan: StudyPlan, output: Path, failures: Mapping[str, str]) -> dict[str, Any]:
    """Sum up the finished runs of a study, and write ``summary.json``, ``summary.md`` and plots.

    ``failures`` say why runs failed, by their folder below ``output``.

    Returns:
        What ``summary.json`` holds:

        - ``study``, ``base``, ``seeds``, ``metrics``, ``models``;
        - ``runs``: ``name``, ``point``, ``seed``, ``state`` (finished, failed or missing),
          ``reason`` and ``seconds`` of training of each;
        - ``points``: ``name``, ``labels`` by axis, ``seeds`` of the finished runs, mean
          ``seconds``, ``privacy`` (null without any), and for each of its ``models`` and metrics
          the ``mean`` over seeds and the ``values``; ``sd`` (null for one run), ``low``
          and ``high``, the 95 % interval of a single run (null for several);
        - ``shared``: the same for models that are alike in all points that rank them;
        - ``differences``: null, or ``reference``, ``model``, and ``points`` as made by
          :func:`~pkgllm.studies.compare.against_reference`;
        - ``notes``.

    Raises:
        RunError: If a file of a finished run is damaged, or the summary cannot be written.
    """
    study = plan.study
    runs_by_point: dict[str, list[_Finished]] = {point.name: [] for point in plan.points}
    for run in plan.runs:
        if finished(output / run.place):
            runs_by_point[run.line].append(_read(study, run, output / run.place))
    shared = [m for m in study.models if m != "tuned" and _is_shared(runs_by_point, m)]
    points = [_point(study, point, runs_by_point[point.name], shared) for point in plan.points]
    differences, notes = _differences(plan, runs_by_point)
    seconds = {run.path.name: run.seconds for runs in runs_by_point.values() for run in runs}
    summary = {
        "study": plan.name,
        "base": study.base,
        "seeds": list(study.seeds),
        "metrics": list(study.metrics),
        "models": list(study.models),
        "runs": [
            {
                "name": run.place,
                "point": run.line,
                "seed": run.config.seed,
                "state": "finished"
                if run.place in seconds
                else ("failed" if run.place in failures else "missing"),
                "reason": failures.get(run.place),
                "seconds": seconds.get(run.place),
            }
            for run in plan.runs
        ],
        "points": points,
        "shared": {
            model: _measures(
                next(runs for runs in runs_by_point.values() if _rank(runs, model)), model, study
            )
            for model in shared
        },
        "differences": differences,
        "notes": notes,
    }
    folder = RunFolder(output)
    folder.write_json(f"{SUMMARY}.json", summary)
    lines = _lines(plan, points)
    for form, content in draw_study(lines).items() if lines is not None else ():
        write_atomically(output / f"{PLOT}.{form}", content)
    plot = f"{PLOT}.png" if lines is not None else None
    folder.write_text(f"{SUMMARY}.md", markdown(study_document(summary, plot)))
    return summary


def _read(study: Study, run: PlannedRun, path: Path) -> _Finished:
    folder = RunFolder(path)
    results = read_object(folder.results)
    ranked = ranked_models(run.config)
    for model in (model for model in study.models if model in ranked):
        for metric in study.metrics:
            try:
                is_number = isinstance(results["models"][model][metric]["value"], int | float)
            except (KeyError, TypeError):
                is_number = False
            if not is_number:
                raise RunError(
                    f"{folder.results}: must hold {metric} of {model}; train the run again"
                )
    stretches = [record.get("seconds") for record in folder.read_timings()]
    known = [seconds for seconds in stretches if isinstance(seconds, int | float)]
    return _Finished(run.config.seed, path, results, sum(known) if known else None)


def _is_shared(runs_by_point: Mapping[str, Sequence[_Finished]], model: str) -> bool:
    """Return whether a model is the same wherever it is ranked, as what is not trained often is."""
    with_runs = [runs for runs in runs_by_point.values() if runs]
    measured = [
        [(run.seed, run.results["models"][model]) for run in runs]
        for runs in with_runs
        if _rank(runs, model)
    ]
    return bool(measured) and len(with_runs) > 1 and all(m == measured[0] for m in measured)


def _rank(runs: Sequence[_Finished], model: str) -> bool:
    return bool(runs) and model in runs[0].results["models"]


def _point(
    study: Study, point: Point, runs: Sequence[_Finished], shared: Sequence[str]
) -> dict[str, Any]:
    seconds = [run.seconds for run in runs if run.seconds is not None]
    return {
        "name": point.name,
        "labels": dict(point.labels),
        "seeds": [run.seed for run in runs],
        "seconds": float(np.mean(seconds)) if seconds else None,
        "privacy": _privacy([run.results.get("privacy") for run in runs]),
        "models": {
            model: _measures(runs, model, study)
            for model in study.models
            if model not in shared and _rank(runs, model)
        },
    }


def _measures(runs: Sequence[_Finished], model: str, study: Study) -> dict[str, Any]:
    return {
        metric: _measure([run.results["models"][model][metric] for run in runs])
        for metric in study.metrics
    }


def _measure(measured: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    values = [float(of_run["value"]) for of_run in measured]
    alone = len(values) == 1
    return {
        "mean": float(np.mean(values)),
        "sd": None if alone else float(np.std(values, ddof=1)),
        "low": measured[0].get("low") if alone else None,
        "high": measured[0].get("high") if alone else None,
        "values": values,
    }


def _privacy(of_runs: Sequence[object]) -> dict[str, Any] | None:
    """Return what holds for all runs of a point: the largest of numbers, every one of words."""
    stated = [privacy for privacy in of_runs if isinstance(privacy, dict)]
    if not stated:
        return None
    combined: dict[str, Any] = {}
    for key, place in PRIVACY.items():
        values = [privacy[place] for privacy in stated if privacy.get(place) is not None]
        numbers = [value for value in values if isinstance(value, int | float)]
        words = dict.fromkeys(
            str(value).replace("_", " ") for value in values if value not in numbers
        )
        combined[key] = max(numbers) if numbers else ", ".join(words) or None
    if len(stated) < len(of_runs):
        combined["unit"] = f"{combined['unit']}, none"
    return combined


def _differences(
    plan: StudyPlan, runs_by_point: Mapping[str, Sequence[_Finished]]
) -> tuple[dict[str, Any] | None, list[str]]:
    study, model = plan.study, plan.study.models[0]
    if study.reference is None:
        return None, []
    reference = next(point.name for point in plan.points if point.labels == study.reference)
    lines = {
        name: RankedRuns({run.seed: run.path for run in runs}, model)
        for name, runs in runs_by_point.items()
    }
    tested, notes = against_reference(reference, lines, metrics=study.metrics)
    if not lines[reference].paths:
        return None, notes
    return {"reference": reference, "model": model, "points": tested}, notes


def _lines(plan: StudyPlan, points: Sequence[Mapping[str, Any]]) -> StudyLines | None:
    plot, layout, model = plan.study.plot, plan.layout, plan.study.models[0]
    if plot is None or layout is None:
        return None
    by_name = {point["name"]: point["models"].get(model) for point in points}
    if not any(by_name.values()):
        return None
    return StudyLines(
        x=plot.x,
        places=layout.places,
        connected=layout.connected,
        metrics={
            metric: {
                line: {
                    place: measures[metric]
                    for place, name in by_place.items()
                    if (measures := by_name[name]) is not None
                }
                for line, by_place in layout.lines.items()
            }
            for metric in plot.metrics or plan.study.metrics
        },
    )
