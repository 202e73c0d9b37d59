"""A configuration's file, found, read, checked as a whole, and written back."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from pydantic import ValidationError

from pkgllm.config.documents import read_yaml, write_yaml
from pkgllm.config.overrides import Override, apply_overrides, parse_override
from pkgllm.config.problems import Problem, problems_of, shown
from pkgllm.config.schema import AnyExperiment, EmbeddingExperiment, Experiment, kind_of
from pkgllm.errors import ConfigError
from pkgllm.lm.model_files import resolved_name
from pkgllm.registry import did_you_mean
from pkgllm.shipped import presets_folder

Kind = Literal["configuration", "study", "table"]
"""What a file describes: one run, the runs of a study, or those of a table of results."""

_FOLDERS: Mapping[str, Kind] = MappingProxyType({"studies": "study", "tables": "table"})
"""Folders of the shipped configurations that hold something else than single runs."""


def find_config(name: str, *, kind: Kind = "configuration") -> Path:
    """Return the file of a configuration: a path, a file in ``./configs``, or a shipped preset.

    Raises:
        ConfigError: If there is none of this name.
    """
    places = list(dict.fromkeys((Path(name), Path("configs") / name, presets_folder() / name)))
    for place in places:
        if place.is_file():
            return place
    folder = presets_folder()
    presets = sorted(
        relative.as_posix()
        for path in folder.rglob("*.yaml")
        if _FOLDERS.get((relative := path.relative_to(folder)).parts[0], "configuration") == kind
    )
    close = did_you_mean(name, presets)
    raise ConfigError(
        f"no {kind} {name}"
        f"{f' (did you mean {close}?)' if close else ''}; "
        f"looked for {', '.join(map(str, places))}; shipped are {', '.join(presets)}"
    )


def load_config(name_or_path: str, overrides: Sequence[str] = ()) -> Experiment:
    """Read the configuration of a run that tunes a language model.

    Raises:
        ConfigError: As :func:`load_any_config` does, or if it trains an embedding.

    Example:
        >>> load_config("quickstart.yaml", ["training.local_steps=2"]).training.local_steps
        2
    """
    experiment = load_any_config(name_or_path, overrides)
    if isinstance(experiment, EmbeddingExperiment):
        raise ConfigError(
            f"{find_config(name_or_path)}: must tune a base_model here, and trains an embedding, "
            f"{experiment.embedding.name}; name another configuration"
        )
    return experiment


def load_any_config(name_or_path: str, overrides: Sequence[str] = ()) -> AnyExperiment:
    """Read a configuration, of whichever kind of run.

    Args:
        name_or_path: What :func:`find_config` takes.
        overrides: Values to set over those of the file, each ``KEY=VALUE``; later ones win.

    Raises:
        ConfigError: If the file cannot be found or read, or for everything in it and in the
            overrides that is wrong, one line each.

    Example:
        >>> load_any_config("baselines/hake.yaml", ["embedding.dim=8"]).embedding.dim
        8
    """
    path = find_config(name_or_path)
    tree, problems = read_tree(path)
    changes = _parse(overrides)
    kind = kind_of(tree)
    changed, misled = apply_overrides(tree, changes, kind)
    problems += misled
    for change in changes:
        problems += change.problems
    experiment: AnyExperiment | None = None
    try:
        # Strict, so that true is no number and "4" no whole number.
        experiment = kind.model_validate(changed, strict=True)
    except ValidationError as error:
        problems += problems_of(error, changed, kind)
    if experiment is None or problems:
        raise ConfigError("\n".join(_line(problem, str(path), changes) for problem in problems))
    return _with_absolute_base(experiment)


def _with_absolute_base(experiment: AnyExperiment) -> AnyExperiment:
    """Return a configuration that means the same folder of a base model from any folder."""
    if isinstance(experiment, EmbeddingExperiment):
        return experiment
    choice = experiment.base_model
    if (name := resolved_name(choice.name)) == choice.name:
        return experiment
    elsewhere = choice.model_copy(update={"name": name})
    return experiment.model_copy(update={"base_model": elsewhere})


def read_tree(path: Path) -> tuple[dict[str, Any], list[Problem]]:
    """Read the keys and values of a file, and a problem for each key that stands twice.

    Raises:
        ConfigError: If the file cannot be read or holds something else.
    """
    tree, problems = read_yaml(_text(path), str(path))
    if not isinstance(tree, dict):
        given = "it is empty" if tree is None else f"got {shown(tree)}"
        raise ConfigError(f"{path}: must hold keys and values, {given}")
    return tree, problems


def dump_config(experiment: AnyExperiment) -> str:
    """Return the whole tree, defaults included, as YAML that loads back equal."""
    return write_yaml(experiment.model_dump(mode="json"))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: must be text in UTF-8, got other bytes") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from error


def _parse(overrides: Iterable[str]) -> list[Override]:
    parsed, lines = [], []
    for text in overrides:
        try:
            parsed.append(parse_override(text))
        except ConfigError as error:
            lines.append(str(error))
    if lines:
        raise ConfigError("\n".join(lines))
    return parsed


def _line(problem: Problem, file: str, overrides: Sequence[Override]) -> str:
    """Begin a problem's line with the place that causes it: an override, or else the file."""
    for cause in filter(None, (problem.path, problem.chosen_by)):
        for override in reversed(overrides):
            if cause[: len(override.path)] != override.path:
                continue
            if cause == problem.path == override.path:
                return f"{override.place}: {problem.message}"
            return f"{override.place}: {problem}"
    below = [o.place for o in overrides if o.path[: len(problem.path)] == problem.path]
    if problem.whole_section and below:
        return f"{file} with {', '.join(dict.fromkeys(below))}: {problem}"
    return f"{file}: {problem}"
