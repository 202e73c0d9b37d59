"""What the files of studies and of tables share: each is one section, and makes many runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import ValidationError

from pkgllm.config.load import find_config, load_any_config, read_tree
from pkgllm.config.problems import problems_of
from pkgllm.config.schema import AnyExperiment, Experiment
from pkgllm.config.section import Section
from pkgllm.errors import ConfigError

Top = TypeVar("Top", bound=Section)


def read_plan(
    name_or_path: str, top: type[Top], *, kind: Literal["study", "table"]
) -> tuple[Path, Top]:
    """Find the file of a plan for many runs, read it, and check it by itself.

    Args:
        name_or_path: What :func:`pkgllm.config.load.find_config` takes.
        top: The section that the whole file is.
        kind: What it is called.

    Returns:
        The file, and what it holds.

    Raises:
        ConfigError: If the file cannot be found or read, or for everything in it that is wrong, one
            line each.
    """
    path = find_config(name_or_path, kind=kind)
    tree, problems = read_tree(path)
    found: Top | None = None
    try:
        found = top.model_validate(tree, strict=True)
    except ValidationError as error:
        problems += problems_of(error, tree, top)
    if found is None or problems:
        raise ConfigError("\n".join(f"{path}: {problem}" for problem in problems))
    return path, found


def ranked_models(config: AnyExperiment) -> tuple[str, ...]:
    """Return the names of the models that a run ranks, the trained one first."""
    with_base = isinstance(config, Experiment) and config.evaluation.base_model
    untuned = ("base",) if with_base else ()
    return ("tuned", *untuned, *config.evaluation.baselines.names)


def load_planned(base: str, overrides: Sequence[str]) -> AnyExperiment:
    """Return the configuration of one of a plan's runs.

    Args:
        base: What it begins with.
        overrides: Each ``KEY=VALUE``, as the plan's file holds them.

    Raises:
        ConfigError: As :func:`pkgllm.config.load.load_any_config` does, without the option of the
            command line, since the same words stand in the file here.
    """
    try:
        return load_any_config(base, overrides)
    except ConfigError as error:
        lines = (line.removeprefix("--set ") for line in str(error).splitlines())
        raise ConfigError("\n".join(dict.fromkeys(lines))) from error
