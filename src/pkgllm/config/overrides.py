"""Single values of a configuration, set from the command line: ``objective.beta=0.2``."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic.fields import FieldInfo

from pkgllm.config.choices import ChosenList, keys, listed, parts, tag
from pkgllm.config.documents import read_yaml
from pkgllm.config.fields import KeyPath
from pkgllm.config.problems import Problem, other_kind
from pkgllm.config.schema import Experiment
from pkgllm.config.section import Section
from pkgllm.errors import ConfigError
from pkgllm.registry import Choice, did_you_mean


@dataclass(frozen=True, slots=True)
class Override:
    """One value to set."""

    path: KeyPath
    value: object
    problems: tuple[Problem, ...] = ()
    """Duplicate keys in the value."""

    @property
    def place(self) -> str:
        """The override as messages name it."""
        return f"--set {'.'.join(self.path)}"


def parse_override(text: str) -> Override:
    """Read ``KEY=VALUE``: a key's path with dots, and a value in YAML.

    Raises:
        ConfigError: If it has another form, or the value is not YAML.

    Example:
        >>> override = parse_override("training.learning_rate=5e-5")
        >>> override.path, override.value
        (('training', 'learning_rate'), 5e-05)
    """
    name, equals, value = text.partition("=")
    path = tuple(part.strip() for part in name.split("."))
    if not equals or not all(path):
        raise ConfigError(
            f"--set {text}: must be KEY=VALUE, for example training.learning_rate=5e-5"
        )
    tree, duplicates = read_yaml(value, f"--set {name.strip()}")
    problems = (Problem((*path, *problem.path), problem.message) for problem in duplicates)
    return Override(path, tree, tuple(problems))


def apply_overrides(
    tree: Mapping[str, Any], overrides: Iterable[Override], top: type[Any] = Experiment
) -> tuple[dict[str, Any], list[Problem]]:
    """Set values in a copy of a tree; later ones win.

    Absent sections are created; one with a default among several choices becomes that choice, so
    that a single key of it can be set.

    Returns:
        The new tree, and a problem for each path that leads through a value instead of a section.
    """
    changed: dict[str, Any] = copy.deepcopy(dict(tree))
    problems = [problem for override in overrides if (problem := _apply(changed, override, top))]
    return changed, problems


def _apply(tree: dict[str, Any], override: Override, top: type[Any]) -> Problem | None:
    here: Any = tree
    choices: Sequence[type[Any]] = (top,)
    for depth, part in enumerate(override.path[:-1]):
        field = _field(choices, part, here)
        inner = parts(field) if field is not None else ()
        if not inner:
            return Problem(override.path, _no_section(override.path[: depth + 1], field, choices))
        if here.get(part) is None:
            here[part] = _default_choice(field)
        mark = listed(field) if field is not None else None
        if mark is not None and isinstance(here[part], tuple):
            rest = override.path[depth + 1 :]
            changed = _set_in_list(here[part], rest, override.value, mark)
            if changed is None:
                return Problem(override.path, f"no choice in the list has a key {'.'.join(rest)}")
            here[part] = changed
            return None
        here, choices = here[part], inner if mark is None else (mark.shorthand,)
        if not isinstance(here, dict):
            # The schema reports that this is not a section.
            return None
    here[override.path[-1]] = override.value
    return None


def _set_in_list(
    entries: tuple[Any, ...], path: KeyPath, value: object, mark: ChosenList
) -> object | None:
    """Set a key of listed choices: of the one that the path begins with, or of all that have it."""
    sections: list[Any] = [
        {"name": entry} if isinstance(entry, str) else entry for entry in entries
    ]
    by_name = {
        s["name"]: s for s in sections if isinstance(s, dict) and s.get("name") in mark.registry
    }
    owner, key = path[:-1], path[-1]
    if not owner and key == "names":
        if isinstance(value, tuple):
            return tuple(by_name.get(name, name) for name in value)
        return {key: value}
    owners = [n for n in by_name if owner == (n,) or (not owner and key in keys(mark.registry[n]))]
    if not owners:
        return None
    for owned in owners:
        by_name[owned][key] = value
    return tuple(sections)


def _field(choices: Sequence[type[Any]], name: str, section: Mapping[str, Any]) -> FieldInfo | None:
    """Return a field of this name, of the section's choice first."""
    ordered = sorted(choices, key=lambda choice: tag(choice) != section.get("name"))
    fields = (keys(choice)[name] for choice in ordered if name in keys(choice))
    return next(fields, None)


def _default_choice(field: FieldInfo | None) -> dict[str, Any]:
    default = field.default if field is not None else None
    name = tag(type(default)) if isinstance(default, Section | Choice) else None
    return {} if name is None else {"name": name}


def _no_section(path: KeyPath, field: FieldInfo | None, choices: Sequence[type[Any]]) -> str:
    name = ".".join(path)
    if field is not None:
        return f"unknown key, because {name} is a value and has no keys"
    if other := other_kind(path, choices[0]):
        return f"unknown key {name} ({other})"
    known = list(dict.fromkeys(key for choice in choices for key in keys(choice)))
    close = did_you_mean(path[-1], known)
    hint = f"did you mean {close}?" if close else f"known here: {', '.join(known)}"
    return f"unknown key {name} ({hint})"
