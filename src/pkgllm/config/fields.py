"""What the schema says about its keys: where one lies, what it takes, whose choice it is."""

import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic.fields import FieldInfo

from pkgllm.config.choices import is_part, keys, listed, names, parts, tag
from pkgllm.config.schema import Experiment

_NOUN_BY_TYPE: dict[object, str] = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    types.NoneType: "null",
}

KeyPath = tuple[str, ...]
"""The keys that lead to a value from the top of the tree."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key of the tree, known or not."""

    path: KeyPath
    section: type[Any]
    """The section that the key stands in."""
    choices: tuple[type[Any], ...]
    """That section and those that could stand in its place."""
    field: FieldInfo | None
    """What the schema says of it; None where the section does not know the key."""


def locate(location: Sequence[int | str], top: type[Any] = Experiment) -> Key:
    """Return the key that a location of pydantic points at.

    Pydantic names the tag of a choice and the members of a union on the way; a person did not write
    those, so they are dropped, and a location inside a plain value becomes the value's own.

    Example:
        >>> locate(("objective", "kto", "beta")).path
        ('objective', 'beta')
        >>> locate(("adapter", "target_modules", "tuple[str, ...]", 1)).path
        ('adapter', 'target_modules')
    """
    section: type[Any] = top
    choices: tuple[type[Any], ...] = (top,)
    path: list[str] = []
    rest = [str(part) for part in location]
    while rest:
        path.append(rest.pop(0))
        field = keys(section).get(path[-1])
        inner = parts(field) if field is not None else ()
        if field is None or not inner:
            return Key(tuple(path), section, choices, field)
        part = inner[0]
        mark = listed(field)
        if mark is not None and rest and not rest[0].isdecimal():
            section, choices = mark.shorthand, (mark.shorthand,)
            continue
        if mark is not None:
            rest, path = rest[1:], path + rest[1:2]
        if names(field) and rest:
            part = next(choice for choice in inner if tag(choice) == rest[0])
            rest.pop(0)
        if not rest:
            return Key(tuple(path), section, choices, field)
        section, choices = part, inner
    return Key((), section, choices, None)


def known_keys(top: type[Any] = Experiment) -> Iterator[KeyPath]:
    """Yield every key of a tree, with those of all choices, outer ones first."""
    yield from dict.fromkeys(_keys_below((), top))


def describe(field: FieldInfo) -> str:
    """Say what a field takes, to stand after "must be".

    Example:
        >>> from pkgllm.config.schema import Evaluation, Training
        >>> from pkgllm.corpora.settings import Split
        >>> describe(Training.model_fields["learning_rate"])
        'a number above 0'
        >>> describe(Evaluation.model_fields["max_clients"])
        'a whole number of at least 1 or null'
        >>> describe(keys(Split)["validation_share"])
        'a number of at least 0 and below 1'
    """
    if listed(field):
        return f"a list of {', '.join(names(field))}, each by name or with its keys and values"
    if parts(field) and all(map(is_part, _members(field.annotation))):
        named = f" named {' or '.join(names(field))}" if names(field) else ""
        return f"a section of keys and values{named}"
    return _describe(field.annotation, tuple(field.metadata))


def _keys_below(path: KeyPath, section: type[Any]) -> Iterator[KeyPath]:
    for name, field in keys(section).items():
        yield (*path, name)
        for inner in parts(field):
            yield from _keys_below((*path, name), inner)


def _members(annotation: object) -> tuple[Any, ...]:
    if get_origin(annotation) in (Union, types.UnionType):
        return get_args(annotation)
    return (annotation,)


def _describe(annotation: object, limits: tuple[object, ...]) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _describe(arguments[0], _flat(arguments[1:]))
    if origin is Literal:
        return f"{'one of ' if len(arguments) > 1 else ''}{', '.join(map(str, arguments))}"
    if origin is tuple:
        return f"a list of {_describe(arguments[0], ())}"
    if origin is dict:
        return f"names, each with {_describe(arguments[1], ())}"
    members = _members(annotation)
    if is_part(annotation):
        return "a section of keys and values"
    if len(members) > 1:
        return " or ".join(_describe(member, ()) for member in members)
    return " ".join(filter(None, (_NOUN_BY_TYPE[annotation], " and ".join(_bounds(limits)))))


def _flat(metadata: tuple[object, ...]) -> tuple[object, ...]:
    """Take the limits out of the ``Field(...)`` that stand in an annotation."""
    return tuple(
        limit
        for entry in metadata
        for limit in (entry.metadata if isinstance(entry, FieldInfo) else (entry,))
    )


def _bounds(limits: tuple[object, ...]) -> Iterator[str]:
    for limit in limits:
        match limit:
            case annotated_types.Gt(gt=bound):
                yield f"above {bound:g}"
            case annotated_types.Ge(ge=bound):
                yield f"of at least {bound:g}"
            case annotated_types.Lt(lt=bound):
                yield f"below {bound:g}"
            case annotated_types.Le(le=bound):
                yield f"of at most {bound:g}"
