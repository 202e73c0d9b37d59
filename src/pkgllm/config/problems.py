"""What is wrong with a tree, in words for the person who wrote it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from pkgllm.config.choices import keys, listed, names, tag
from pkgllm.config.fields import Key, KeyPath, describe, known_keys, locate
from pkgllm.config.schema import KINDS, EmbeddingExperiment, Experiment
from pkgllm.config.section import Section
from pkgllm.registry import did_you_mean

_RENAMED: dict[KeyPath, str] = {("layout",): "partition"}
"""Keys that are named otherwise, by the path that they are still looked for at."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong."""

    path: KeyPath
    message: str
    chosen_by: KeyPath | None = None
    """The key whose value makes this one wrong: the ``name`` of the choice it stands in."""
    whole_section: bool = False
    """Whether several keys below the path are at odds, rather than one value wrong."""

    def __str__(self) -> str:
        return ": ".join(filter(None, (".".join(self.path), self.message)))


def problems_of(
    error: ValidationError, tree: object, top: type[Section] = Experiment
) -> Iterator[Problem]:
    """Turn pydantic's errors about a tree into problems, one for each key."""
    seen: set[tuple[KeyPath, str]] = set()
    for details in error.errors(include_url=False):
        for problem in _problems(details, tree, top):
            if (problem.path, problem.message) not in seen:
                seen.add((problem.path, problem.message))
                yield problem


def shown(value: object) -> str:
    """Return a value as JSON, shortened, for the end of a message.

    Example:
        >>> shown("fast"), shown(("a", 3)), shown(None)
        ('"fast"', '["a", 3]', 'null')
    """
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."


def other_kind(path: KeyPath, top: type[Section]) -> str | None:
    """Say that a key of the top level belongs to the other kind of run, if it does."""
    does: dict[type[Section], str] = {
        Experiment: "tunes a base_model",
        EmbeddingExperiment: "trains an embedding",
    }
    for kind in KINDS:
        if top in does and kind is not top and len(path) == 1 and path[0] in kind.model_fields:
            return f"it belongs to a run that {does[kind]}, and this one {does[top]}"
    return None


def _problems(details: ErrorDetails, tree: object, top: type[Section]) -> Iterator[Problem]:
    key = locate(details["loc"], top)
    match details["type"]:
        case "extra_forbidden":
            yield _unknown_key(key, details["input"], top)
        case "missing":
            yield Problem(key.path, f"missing, must be {_expected(key)}", _name_beside(key))
        case "union_tag_not_found" | "union_tag_invalid":
            yield _wrong_choice(key, details["input"])
        case "value_error":
            # A validator of several keys writes one line for each of its problems.
            for line in str(details["ctx"]["error"]).splitlines():
                yield Problem(key.path, line, whole_section=True)
        case "invalid_key":
            yield Problem(key.path, "unknown key, because every key is text")
        case "finite_number":
            yield Problem(key.path, f"must be finite, got {shown(_value_at(key.path, tree))}")
        case _:
            given = shown(_value_at(key.path, tree))
            yield Problem(key.path, f"must be {_expected(key)}, got {given}")


def _expected(key: Key) -> str:
    return describe(key.field) if key.field is not None else "a section of keys and values"


def _value_at(path: KeyPath, tree: object) -> object:
    for part in path:
        if isinstance(tree, tuple):
            # A list of choices: a path names the one that is meant.
            named = (e for e in tree if isinstance(e, dict) and e.get("name") == part)
            tree = next(named, None)
        else:
            tree = tree.get(part) if isinstance(tree, dict) else None
    return tree


def _name_beside(key: Key) -> KeyPath | None:
    return None if tag(key.section) is None else (*key.path[:-1], "name")


def _unknown_key(key: Key, value: object, top: type[Section]) -> Problem:
    name = key.path[-1]
    owners = [
        str(tag(choice))
        for choice in key.choices
        if choice is not key.section and name in keys(choice)
    ]
    if owners:
        hint = f"it belongs to {' and '.join(owners)}, not to {tag(key.section)}"
        return Problem(
            key.path, f"unknown key, got {shown(value)} ({hint})", chosen_by=_name_beside(key)
        )
    return Problem(key.path, f"unknown key, got {shown(value)} ({_nearest(key, top)})")


def _nearest(key: Key, top: type[Section]) -> str:
    name = key.path[-1]
    if renamed := _RENAMED.get(key.path):
        return f"it is called {renamed}"
    if other := other_kind(key.path, top):
        return other
    if close := did_you_mean(name, keys(key.section)):
        return f"did you mean {close}?"
    if elsewhere := next((path for path in known_keys(top) if path[-1] == name != "name"), None):
        return f"did you mean {'.'.join(elsewhere)}?"
    return f"known here: {', '.join(keys(key.section))}"


def _wrong_choice(key: Key, value: object) -> Problem:
    assert key.field is not None
    tags = names(key.field)
    path = key.path if listed(key.field) else (*key.path, "name")
    given = value.get("name") if isinstance(value, dict) else None
    if given is None:
        return Problem(path, f"missing, must be one of {', '.join(tags)}")
    close = did_you_mean(str(given), tags)
    hint = f" (did you mean {close}?)" if close else ""
    return Problem(path, f"must be one of {', '.join(tags)}, got {shown(given)}{hint}")
