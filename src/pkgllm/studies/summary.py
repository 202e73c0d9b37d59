"""What the runs of a study found, point by point, as JSON, Markdown and a plot."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pkgllm.config.plan_files import ranked_models
from pkgllm.config.study import Point
from pkgllm.config.study_runs import Plan
from pkgllm.errors import RunError
from pkgllm.files import write_atomically
from pkgllm.pipeline.run_record import read_json
from pkgllm.report.study import study_document
from pkgllm.report.study_plots import StudyLines, draw_study
from pkgllm.report.to_markdown import markdown
from pkgllm.runs.folder import RunFolder
from pkgllm.studies.comparison import RankedRuns, against_reference

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
"""What a table says about privacy, and where it stands in ``privacy`` of results.json."""


@dataclass(frozen=True, slots=True)
class _Finished:
    """A finished run."""

    seed: int
    path: Path
    results: Mapping[str, Any]
    seconds: float | None
    """Of training, all stretches of it."""


def write_summary(plan: Plan, output: Path, failures: Mapping[str, str]) -> dict[str, Any]:
    """Sum up the finished runs of a study, and write it down.

    Args:
        plan: The study.
        output: Folder of its run folders.
        failures: Reasons, by the name of the run.

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
          :func:`~pkgllm.studies.comparison.against_reference`;
        - ``notes``.

    Raises:
        RunError: If a file of a finished run is damaged, or the summary cannot be written.
    """
    study = plan.study
    found = {point.name: list(_finished(plan, point, output)) for point in study.points()}
    shared = [model for model in study.models if model != "tuned" and _is_shared(found, model)]
    points = [_point_row(plan, point, found[point.name], shared) for point in study.points()]
    differences, notes = _differences(plan, found)
    seconds = {run.path.name: run.seconds for runs in found.values() for run in runs}
    summary = {
        "study": plan.name,
        "base": study.base,
        "seeds": list(study.seeds),
        "metrics": list(study.metrics),
        "models": list(study.models),
        "runs": [
            {
                "name": run.name,
                "point": run.point.name,
                "seed": run.config.seed,
                "state": "finished"
                if run.name in seconds
                else ("failed" if run.name in failures else "missing"),
                "reason": failures.get(run.name),
                "seconds": seconds.get(run.name),
            }
            for run in plan.runs
        ],
        "points": points,
        "shared": {
            model: _measures(
                next(runs for runs in found.values() if _rank(runs, model)), model, study.metrics
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


def _finished(plan: Plan, point: Point, output: Path) -> Iterator[_Finished]:
    for run in plan.of_point(point):
        ranked = ranked_models(run.config)
        folder = RunFolder(output / run.name)
        if not folder.results.exists():
            continue
        results = read_json(folder.results)
        for model in (model for model in plan.study.models if model in ranked):
            for metric in plan.study.metrics:
                match results:
                    case {"models": {**models}} if _is_measured(models.get(model), metric):
                        pass
                    case _:
                        raise RunError(
                            f"{folder.results}: must hold {metric} of {model}; train the run again"
                        )
        spent = [record.get("seconds") for record in folder.read_timings()]
        known = [seconds for seconds in spent if isinstance(seconds, int | float)]
        yield _Finished(run.config.seed, folder.path, results, sum(known) if known else None)


def _is_measured(model: object, metric: str) -> bool:
    match model:
        case {**metrics} if isinstance(measured := metrics.get(metric), dict):
            return isinstance(measured.get("value"), int | float)
        case _:
            return False


def _is_shared(found: Mapping[str, Sequence[_Finished]], model: str) -> bool:
    """Return whether a model is the same wherever it is ranked, as what is not trained often is."""
    finished = [runs for runs in found.values() if runs]
    told = [
        [(run.seed, run.results["models"][model]) for run in runs]
        for runs in finished
        if _rank(runs, model)
    ]
    return bool(told) and len(finished) > 1 and all(of_point == told[0] for of_point in told)


def _rank(runs: Sequence[_Finished], model: str) -> bool:
    return bool(runs) and model in runs[0].results["models"]


def _point_row(
    plan: Plan, point: Point, runs: Sequence[_Finished], shared: Sequence[str]
) -> dict[str, Any]:
    seconds = [run.seconds for run in runs if run.seconds is not None]
    own = [model for model in plan.study.models if model not in shared]
    return {
        "name": point.name,
        "labels": dict(point.labels),
        "seeds": [run.seed for run in runs],
        "seconds": float(np.mean(seconds)) if seconds else None,
        "privacy": _privacy([run.results.get("privacy") for run in runs]),
        "models": {
            model: _measures(runs, model, plan.study.metrics) for model in own if _rank(runs, model)
        },
    }


def _measures(runs: Sequence[_Finished], model: str, metrics: Sequence[str]) -> dict[str, Any]:
    return {
        metric: _measure([run.results["models"][model][metric] for run in runs])
        for metric in metrics
    }


def _measure(measured: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    values = [float(found["value"]) for found in measured]
    alone = len(values) == 1
    return {
        "mean": float(np.mean(values)),
        "sd": None if alone else float(np.std(values, ddof=1)),
        "low": measured[0].get("low") if alone else None,
        "high": measured[0].get("high") if alone else None,
        "values": values,
    }


def _privacy(told: Sequence[object]) -> dict[str, Any] | None:
    """Return what holds for all runs of a point: the largest of numbers, every one of words."""
    stated = [found for found in told if isinstance(found, dict)]
    if not stated:
        return None
    combined: dict[str, Any] = {}
    for key, place in PRIVACY.items():
        values = [found[place] for found in stated if found.get(place) is not None]
        numbers = [value for value in values if isinstance(value, int | float)]
        words = dict.fromkeys(
            str(value).replace("_", " ") for value in values if value not in numbers
        )
        combined[key] = max(numbers) if numbers else ", ".join(words) or None
    if len(stated) < len(told):
        combined["unit"] = f"{combined['unit']}, none"
    return combined


def _differences(
    plan: Plan, found: Mapping[str, Sequence[_Finished]]
) -> tuple[dict[str, Any] | None, list[str]]:
    study = plan.study
    if study.reference is None:
        return None, []
    reference = next(p.name for p in study.points() if p.labels == study.reference)
    model = study.models[0]
    runs = {
        name: RankedRuns({run.seed: run.path for run in of_point}, model)
        for name, of_point in found.items()
        if of_point
    }
    if reference not in runs:
        return None, [f"No differences, because no run of the reference {reference} is finished."]
    others = {name: of_point for name, of_point in runs.items() if name != reference}
    tested, notes = against_reference(runs[reference], others, metrics=study.metrics)
    return {"reference": reference, "model": model, "points": tested}, notes


def _lines(plan: Plan, points: Sequence[Mapping[str, Any]]) -> StudyLines | None:
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
