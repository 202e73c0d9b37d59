"""What studies and tables share: a file that is one section, and the runs that it makes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import ValidationError

from pkgllm.config.differences import differences
from pkgllm.config.load import find_config, load_any_config, read_tree
from pkgllm.config.problems import problems_of
from pkgllm.config.schema import AnyExperiment, Experiment
from pkgllm.config.section import Section
from pkgllm.errors import ConfigError

Top = TypeVar("Top", bound=Section)


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """One run of a study or a table."""

    place: str
    """Its folder below that of the study or table."""
    line: str
    """The point or row whose run it is."""
    config: AnyExperiment


def number_as_text(value: Any) -> Any:
    """Return a number as text, so that ``8: [...]`` need not be written ``"8": [...]``."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return f"{value}" if is_number else value


def text_keys(value: Any) -> Any:
    """Return a tree whose keys that are numbers became text."""
    if not isinstance(value, dict):
        return value
    return {number_as_text(key): text_keys(inner) for key, inner in value.items()}


def read_plan(
    name_or_path: str, top: type[Top], *, kind: Literal["study", "table"]
) -> tuple[Path, Top]:
    """Read the file of a plan, found as for ``pkgllm train``, and check it by itself.

    Raises:
        ConfigError: If the file cannot be found or read, or for everything in it that is wrong, one
            line each.
    """
    path = find_config(name_or_path, kind=kind)
    tree, problems = read_tree(path)
    content: Top | None = None
    try:
        content = top.model_validate(tree, strict=True)
    except ValidationError as error:
        problems += problems_of(error, tree, top)
    if content is None or problems:
        raise ConfigError("\n".join(f"{path}: {problem}" for problem in problems))
    return path, content


def planned_config(base: str, overrides: Sequence[str]) -> AnyExperiment:
    """Return the configuration of a run: ``KEY=VALUE`` over a base, later ones win.

    Raises:
        ConfigError: As :func:`pkgllm.config.load.load_any_config`, without ``--set``, since the
            overrides stand in the plan's file.
    """
    try:
        return load_any_config(base, overrides)
    except ConfigError as error:
        lines = (line.removeprefix("--set ") for line in str(error).splitlines())
        raise ConfigError("\n".join(dict.fromkeys(lines))) from error


def ranked_models(config: AnyExperiment) -> tuple[str, ...]:
    """Return the names of the models that a run ranks, the trained one first."""
    with_base = isinstance(config, Experiment) and config.evaluation.base_model
    untuned = ("base",) if with_base else ()
    return ("tuned", *untuned, *(scorer.name for scorer in config.evaluation.baselines))


def check_same_settings(runs: Sequence[PlannedRun], output: Path, source: str) -> None:
    """Raise where a folder holds a run of another configuration.

    Raises:
        ConfigError: If one does; all differing keys are named.
    """
    lines = []
    for run in runs:
        path = output / run.place
        config = path / "config.yaml"
        if config.exists() and (differing := differences(load_any_config(str(config)), run.config)):
            lines.append(
                f"{path}: must be a run of {source}, and differs in {'; '.join(differing)}; take "
                "it away, or choose another --output"
            )
    if lines:
        raise ConfigError("\n".join(lines))
