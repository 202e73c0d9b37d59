"""A study's file turned into the configurations of all its runs."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from pkgllm.config.load import find_config
from pkgllm.config.mode_sections import DeploymentRuntime, Federated
from pkgllm.config.schema import AnyExperiment, Experiment
from pkgllm.errors import ConfigError
from pkgllm.registry import did_you_mean
from pkgllm.studies.plan import PlannedRun, planned_config, ranked_models, read_plan
from pkgllm.studies.plot import PlotLayout, lay_out_plot
from pkgllm.studies.study import Point, Study


@dataclass(frozen=True, slots=True)
class StudyPlan:
    """A study and all its runs, checked."""

    name: str
    source: str
    """How the study was named on the command line."""
    study: Study
    points: tuple[Point, ...]
    runs: tuple[PlannedRun, ...]
    """Point by point, each with every seed."""
    layout: PlotLayout | None
    """Of the plot."""


def load_study(name_or_path: str) -> StudyPlan:
    """Read a study and check every run of it.

    Args:
        name_or_path: A path, a file in ``./configs``, or a shipped one: ``studies/NAME.yaml``.

    Raises:
        ConfigError: If the file cannot be found or read, or for everything in it, and in all the
            configurations that it makes, that is wrong; one line each.

    Example:
        >>> plan = load_study("studies/aggregators.yaml")
        >>> [run.place for run in plan.runs][:3]
        ['fedavg-seed0', 'fedprox-seed0', 'scaffold-seed0']
    """
    path, study = read_plan(name_or_path, Study, kind="study")
    points = study.points()
    configs = _configs(path, study, points)
    layout = None
    if study.plot is not None:
        layout = lay_out_plot(study.plot, [(point, configs[point.name]) for point in points])
        if layout.problems:
            raise ConfigError("\n".join(f"{path}: {problem}" for problem in layout.problems))
    runs = tuple(
        PlannedRun(
            f"{point.name}-seed{seed}",
            point.name,
            configs[point.name].model_copy(update={"seed": seed}),
        )
        for point in points
        for seed in study.seeds
    )
    return StudyPlan(path.stem, name_or_path, study, points, runs, layout)


def _configs(path: Path, study: Study, points: tuple[Point, ...]) -> Mapping[str, AnyExperiment]:
    """Return each point's configuration by the point's name."""
    find_config(study.base)
    configs: dict[str, AnyExperiment] = {}
    points_by_problem: dict[str, list[str]] = {}
    for point in points:
        try:
            config = configs[point.name] = planned_config(study.base, point.overrides)
            problems = _not_for_sweeps(config)
        except ConfigError as error:
            problems = str(error).splitlines()
        for problem in problems:
            points_by_problem.setdefault(problem, []).append(point.name)
    lines = [f"{_joined(names, points)}: {line}" for line, names in points_by_problem.items()]
    # It is unknown what a point with a wrong configuration would rank.
    lines += _never_ranked(study, configs.values()) if len(configs) == len(points) else ()
    if lines:
        raise ConfigError("\n".join(f"{path}: {line}" for line in lines))
    return configs


def _not_for_sweeps(config: AnyExperiment) -> list[str]:
    match config:
        case Experiment(mode=Federated(runtime=DeploymentRuntime())):
            return ["mode.runtime must be local or ray in a sweep, got deployment"]
        case _:
            return []


def _never_ranked(study: Study, configs: Iterable[AnyExperiment]) -> Iterator[str]:
    """Yield models that are not ranked: the first by some run, the others by none."""
    by_run = [ranked_models(config) for config in configs]
    somewhere = tuple(dict.fromkeys(chain.from_iterable(by_run)))
    everywhere = tuple(model for model in somewhere if all(model in ranked for ranked in by_run))
    for model, known, which in (
        (study.models[0], everywhere, "the first of models must be ranked by all runs"),
        *((model, somewhere, "models must be ranked by the runs") for model in study.models[1:]),
    ):
        if model not in known:
            close = None if model in somewhere else did_you_mean(model, known)
            yield (
                f"{which} ({', '.join(known)}), got {model}"
                f"{f'; did you mean {close}?' if close else ''}"
            )


def _joined(names: list[str], points: tuple[Point, ...]) -> str:
    return "every point" if len(names) == len(points) > 1 else ", ".join(names)
