"""Settings that other rooms define, as parts of the tree: choices of a registry, and dataclasses.

A settings dataclass knows nothing of pydantic. Here a model is made of its fields, which checks
what a configuration gives, and the dataclass is built from the checked values.
"""

import ast
import dataclasses
import inspect
import textwrap
import types
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import pairwise
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, ValidationError, create_model
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, InitErrorDetails, PydanticKnownError, core_schema

from pkgllm.config.section import Section
from pkgllm.registry import Choice, Registry

_CHECKED = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


@dataclasses.dataclass(frozen=True, slots=True)
class ChosenFrom:
    """Marks a part of the tree as a choice: its ``name`` says which, and so which keys it takes.

    Example:
        >>> from pydantic import TypeAdapter
        >>> from pkgllm.objectives import OBJECTIVES
        >>> from pkgllm.registry import Choice
        >>> objective = TypeAdapter(Annotated[Choice, ChosenFrom(OBJECTIVES)])
        >>> objective.validate_python({"name": "dpo"}).beta
        0.1
    """

    registry: Registry[Any]

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Read and write such a part."""
        return _schema(self._read)

    def _read(self, value: object) -> object:
        if isinstance(value, Choice):
            return _build(type(value), plain(value), (value.name,))
        if not isinstance(value, Mapping):
            raise PydanticKnownError("model_type", {"class_name": self.registry.kind})
        name = value.get("name")
        if not isinstance(name, str) or name not in self.registry:
            tags = {"discriminator": "name", "tag": str(name), "expected_tags": ""}
            raise PydanticKnownError("union_tag_invalid", tags)
        return _build(self.registry[name], value, (name,))


@dataclasses.dataclass(frozen=True, slots=True)
class ChosenList:
    """Marks a part of the tree as a list of choices, each a bare name or its keys and values.

    A mapping is read too: ``names`` lists the choices (as the default does where it is absent), and
    every other key is given to each of them that has it.

    Example:
        >>> from pydantic import TypeAdapter
        >>> from pkgllm.baselines import SCORERS
        >>> from pkgllm.registry import Choice
        >>> scorers = TypeAdapter(Annotated[tuple[Choice, ...], ChosenList(SCORERS, ("ease",))])
        >>> scorers.validate_python(("popularity", {"name": "ease", "l2": 7}))
        (Popularity(name='popularity'), Ease(name='ease', l2=7.0))
        >>> scorers.validate_python({"l2": 7, "neighbours": 5})
        (Ease(name='ease', l2=7.0),)
    """

    registry: Registry[Any]
    default: tuple[str, ...]

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Read and write such a part."""
        entry = Annotated[Choice, ChosenFrom(self.registry)]
        entries = handler.generate_schema(tuple[entry, ...])
        read = core_schema.no_info_before_validator_function(self._entries, entries)
        return core_schema.no_info_after_validator_function(self._each_once, read)

    @property
    def shorthand(self) -> type[Section]:
        """What a mapping in place of the list takes."""
        return _shorthand(self)

    def _entries(self, value: object) -> object:
        if isinstance(value, Mapping):
            checked = self.shorthand.model_validate(dict(value), strict=True)
            given = {key: getattr(checked, key) for key in checked.model_fields_set}
            names = given.pop("names", self.default)
            value = tuple(
                {"name": name, **{k: v for k, v in given.items() if k in keys(self.registry[name])}}
                for name in names
            )
        if isinstance(value, tuple):
            return tuple({"name": e} if isinstance(e, str) else e for e in value)
        return value

    def _each_once(self, choices: tuple[Choice, ...]) -> tuple[Choice, ...]:
        once = tuple(dict.fromkeys(choices))
        names = [choice.name for choice in once]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"{name} must be listed once, got it with different settings")
        return once


class _Shorthand(Section):
    """Names of choices, and keys of all of them."""

    model_config = ConfigDict(allow_inf_nan=False)


@cache
def _shorthand(mark: ChosenList) -> type[Section]:
    """Return a section of all keys of the choices, none of which must be given."""
    fields: dict[str, Any] = {
        key: (Annotated[(field.annotation, *field.metadata)], None)
        for choice in mark.registry.usable()
        for key, field in keys(choice).items()
        if key != "name"
    }
    name: Any = Literal.__getitem__(tuple(mark.registry))
    fields["names"] = (tuple.__class_getitem__((name, ...)), None)
    return create_model("Shorthand", __base__=_Shorthand, **fields)


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """Marks a part of the tree as a dataclass that another room defines."""

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Read and write such a part."""

        def read(value: object) -> object:
            if isinstance(value, source):
                return _build(source, plain(value), ())
            if not isinstance(value, Mapping):
                raise PydanticKnownError("model_type", {"class_name": source.__name__})
            return _build(source, value, ())

        return _schema(read)


def is_part(kind: object) -> bool:
    """Return whether a type is a part of the tree with keys of its own."""
    return isinstance(kind, type) and (issubclass(kind, Section) or dataclasses.is_dataclass(kind))


def keys(part: type[Any]) -> Mapping[str, FieldInfo]:
    """Return what a part of the tree takes, by key.

    Example:
        >>> from pkgllm.objectives import OBJECTIVES
        >>> list(keys(OBJECTIVES["sft"]))
        ['name']
    """
    if issubclass(part, Section):
        return part.model_fields
    return model_of(part).model_fields  # type: ignore[arg-type]  # a class can be hashed


def parts(field: FieldInfo) -> tuple[type[Any], ...]:
    """Return the part that a field holds, or every choice of it; empty for a plain value.

    Choices of other packages that cannot be imported are left out.
    """
    for mark in field.metadata:
        if isinstance(mark, ChosenFrom | ChosenList):
            return tuple(mark.registry.usable())
    annotation = field.annotation
    union = get_origin(annotation) in (Union, types.UnionType)
    members = get_args(annotation) if union else (annotation,)
    bare = (get_args(m)[0] if get_origin(m) is Annotated else m for m in members)
    return tuple(member for member in bare if is_part(member))


def listed(field: FieldInfo) -> ChosenList | None:
    """Return the mark of a field that holds a list of choices, or None."""
    return next((mark for mark in field.metadata if isinstance(mark, ChosenList)), None)


def names(field: FieldInfo) -> tuple[str, ...]:
    """Return the names by which a field's choices are made; none where there is no choice."""
    for mark in field.metadata:
        if isinstance(mark, ChosenFrom | ChosenList):
            return tuple(mark.registry)
    return tuple(name for part in parts(field) if (name := tag(part)) is not None)


def tag(part: type[Any]) -> str | None:
    """Return the ``name`` by which a part is chosen, or None where there is no choice.

    Example:
        >>> from pkgllm.config.schema import Training
        >>> from pkgllm.objectives.kto import Kto
        >>> tag(Kto), tag(Training)
        ('kto', None)
    """
    field = keys(part).get("name")
    if field is None or get_origin(field.annotation) is not Literal:
        return None
    return str(get_args(field.annotation)[0])


def choices_in(section: Section) -> Iterator[Choice]:
    """Yield every choice that a tree holds, in order of its keys."""
    for key in type(section).model_fields:
        value = getattr(section, key)
        for part in value if isinstance(value, tuple) else (value,):
            if isinstance(part, Choice):
                yield part
            elif isinstance(part, Section):
                yield from choices_in(part)


def plain(settings: Any) -> dict[str, Any]:
    """Return the keys and values of a settings dataclass, dataclasses in it likewise."""
    return dataclasses.asdict(settings)


def documentation(part: type[Any], key: str) -> str:
    """Return the string under a field of a part, which documents it; empty where there is none."""
    if issubclass(part, Section):
        return part.model_fields[key].description or ""
    for owner in part.__mro__:
        if key in vars(owner).get("__annotations__", {}):
            return _documented(owner).get(key, "")
    return ""


@cache
def model_of(settings: type[Any]) -> type[BaseModel]:
    """Return the model that checks what a configuration gives for a settings dataclass."""
    hints = get_type_hints(settings, include_extras=True)
    fields: dict[str, Any] = {
        field.name: (_marked(hints[field.name]), _default(field))
        for field in dataclasses.fields(settings)
    }
    return create_model(settings.__name__, __config__=_CHECKED, **fields)


def _default(field: "dataclasses.Field[Any]") -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return ... if field.default is dataclasses.MISSING else field.default


def _marked(hint: Any) -> Any:
    """Mark the dataclasses and registries in a field's type for :func:`_build`."""
    if get_origin(hint) is Annotated:
        inner, *marks = get_args(hint)
        moved = tuple(ChosenFrom(m) if isinstance(m, Registry) else m for m in marks)
        return Annotated[(inner, *moved)]
    if get_origin(hint) in (Union, types.UnionType):
        return Union[tuple(_marked(member) for member in get_args(hint))]  # noqa: UP007
    return Annotated[hint, Settings()] if dataclasses.is_dataclass(hint) else hint


@cache
def _documented(owner: type[Any]) -> dict[str, str]:
    """Return the strings under a class's fields, by field."""
    body = ast.parse(textwrap.dedent(inspect.getsource(owner))).body[0].body  # type: ignore[attr-defined]
    return {
        field.target.id: inspect.cleandoc(string.value.value)
        for field, string in pairwise(body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(string, ast.Expr)
        and isinstance(string.value, ast.Constant)
        and isinstance(string.value.value, str)
    }


def _schema(read: Any) -> CoreSchema:
    return core_schema.no_info_plain_validator_function(
        read, serialization=core_schema.plain_serializer_function_ser_schema(plain)
    )


def _build(settings: type[Any], value: Mapping[Any, Any], tags: tuple[str, ...]) -> object:
    model = model_of(settings)  # type: ignore[arg-type]  # a class can be hashed
    given = dict(value)
    for name, field in model.model_fields.items():
        # Absent keys of a part keep what the default of this very part has for them.
        if is_part(type(field.default)) and isinstance(given.get(name), Mapping):
            given[name] = {**plain(field.default), **given[name]}
    try:
        # Strict, so that true is no number and "4" no whole number.
        checked = model.model_validate(given, strict=True)
    except ValidationError as error:
        raise ValidationError.from_exception_data(
            error.title,
            [
                InitErrorDetails(
                    type=line["type"],
                    loc=(*tags, *line["loc"]),
                    input=line["input"],
                    ctx=line.get("ctx", {}),
                )
                for line in error.errors(include_url=False)
            ],
        ) from error
    return settings(**{name: getattr(checked, name) for name in model.model_fields})
