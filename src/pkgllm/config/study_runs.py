"""A study's file, found, read, and turned into the configurations of all its runs."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from pkgllm.config.load import find_config
from pkgllm.config.mode_sections import DeploymentRuntime, Federated
from pkgllm.config.plan_files import load_planned, ranked_models, read_plan
from pkgllm.config.problems import did_you_mean
from pkgllm.config.schema import AnyExperiment, Experiment
from pkgllm.config.study import Point, Study
from pkgllm.config.study_plot import Layout, clash_lines, lay_out_plot
from pkgllm.errors import ConfigError


@dataclass(frozen=True, slots=True)
class StudyRun:
    """One run of a study."""

    name: str
    """Of its folder."""
    point: Point
    config: AnyExperiment


@dataclass(frozen=True, slots=True)
class Plan:
    """A study and all its runs, checked."""

    name: str
    given: str
    """How the study was named on the command line."""
    study: Study
    runs: tuple[StudyRun, ...]
    layout: Layout | None
    """Of the plot."""

    def of_point(self, point: Point) -> tuple[StudyRun, ...]:
        """Return the runs of a point, by seed."""
        return tuple(run for run in self.runs if run.point == point)


def load_study(name_or_path: str) -> Plan:
    """Read a study and check every run of it.

    Args:
        name_or_path: A path, a file in ``./configs``, or a shipped one: ``studies/NAME.yaml``.

    Raises:
        ConfigError: If the file cannot be found or read, or for everything in it, and in all the
            configurations that it makes, that is wrong; one line each.

    Example:
        >>> plan = load_study("studies/aggregators.yaml")
        >>> [run.name for run in plan.runs][:3]
        ['fedavg-seed0', 'fedprox-seed0', 'scaffold-seed0']
    """
    path, study = read_plan(name_or_path, Study, kind="study")
    points = study.points()
    configs = _configs(path, study, points)
    layout = None
    if study.plot is not None:
        layout = lay_out_plot(study.plot, [(point, configs[point.name]) for point in points])
        if clashing := list(clash_lines(layout)):
            raise ConfigError("\n".join(f"{path}: {line}" for line in clashing))
    return Plan(
        path.stem,
        name_or_path,
        study,
        tuple(
            StudyRun(
                f"{point.name}-seed{seed}",
                point,
                configs[point.name].model_copy(update={"seed": seed}),
            )
            for point in points
            for seed in study.seeds
        ),
        layout,
    )


def _configs(path: Path, study: Study, points: tuple[Point, ...]) -> Mapping[str, AnyExperiment]:
    """Return each point's configuration by the point's name."""
    find_config(study.base)
    found: dict[str, AnyExperiment] = {}
    points_by_line: dict[str, list[str]] = {}
    for point in points:
        try:
            config = load_planned(study.base, point.overrides)
            lines = _not_for_sweeps(config)
            found[point.name] = config
        except ConfigError as error:
            lines = str(error).splitlines()
        for line in lines:
            points_by_line.setdefault(line, []).append(point.name)
    lines = [f"{_named(names, points)}: {line}" for line, names in points_by_line.items()]
    # Of a point that cannot be, nobody knows what it would rank.
    lines += _never_ranked(study, found.values()) if len(found) == len(points) else ()
    if lines:
        raise ConfigError("\n".join(f"{path}: {line}" for line in lines))
    return found


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


def _named(names: list[str], points: tuple[Point, ...]) -> str:
    return "every point" if len(names) == len(points) > 1 else ", ".join(names)
