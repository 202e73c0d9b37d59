"""Named, replaceable parts of a run: what a choice is, and where the choices of a kind are found.

A choice is one file: a frozen dataclass whose fields are its keys in a configuration, with its
behaviour, its needs and its citation. A line in the registry of its kind names it. Other packages
add choices by entry points, without a change here.
"""

import difflib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, ClassVar, Generic, TypeAlias, TypeVar

from pkgllm.errors import ConfigError

RunSettings: TypeAlias = Any
"""The checked tree of a run, of which a choice reads the sections that it depends on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A named, replaceable part of a run; a subclass adds its settings as fields.

    A field's type says what a configuration may give (bounds by ``annotated_types``, see
    :mod:`pkgllm.bounds`), its default what is taken otherwise, and the string under it is its
    documentation with its unit. A subclass gives ``name`` the type ``Literal["..."]`` and the same
    default; a registry refuses one whose name is another than the one it is registered by.
    """

    name: str = ""
    """By which a configuration chooses it."""

    citation: ClassVar[str] = ""
    """Authors, year and where it was published, for a choice that others invented."""

    def problems(self, run: RunSettings) -> Iterable[str]:
        """Return what the rest of a run must be changed in for this choice, a line each.

        A line begins with the key that is wrong, says what must hold and why, and ends with what
        was given and what to do.
        """
        return ()


C = TypeVar("C", bound=Choice)


def did_you_mean(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that is closest to a wrong one, if any is close."""
    return next(iter(difflib.get_close_matches(name, list(known), n=1)), None)


class UnknownChoiceError(ConfigError):
    """No choice of this name is known."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = list(known)
        close = did_you_mean(name, names)
        hint = f" (did you mean {close}?)" if close else ""
        super().__init__(f'{kind} must be one of {", ".join(names)}, got "{name}"{hint}')


class Registry(Generic[C]):
    """The choices of one kind by name; one is imported when it is first asked for.

    Args:
        kind: What is chosen, such as ``objective``, as messages call it.
        group: Entry points by which other packages add choices, such as ``pkgllm.objectives``.
        choices: Our own: ``"module:Class"`` by name.

    Example:
        >>> from pkgllm.objectives import OBJECTIVES
        >>> OBJECTIVES["kto"].__name__
        'Kto'
    """

    def __init__(self, kind: str, group: str, choices: dict[str, str]) -> None:
        self.kind = kind
        self.group = group
        self._own = choices
        self._loaded: dict[str, type[C]] = {}

    @cached_property
    def _foreign(self) -> dict[str, EntryPoint]:
        installed = entry_points(group=self.group)
        return {point.name: point for point in installed if point.name not in self._own}

    def __iter__(self) -> Iterator[str]:
        """Yield the names of our own choices, then those of other packages."""
        yield from self._own
        yield from self._foreign

    def __contains__(self, name: object) -> bool:
        """Return whether a choice of this name is known, without importing it."""
        return name in self._own or name in self._foreign

    def __getitem__(self, name: str) -> type[C]:
        """Import and return a choice.

        Raises:
            UnknownChoiceError: If there is none of this name.
            ConfigError: If the package that provides it is broken.
        """
        if name not in self._loaded:
            if name in self._own:
                module, _, attribute = self._own[name].partition(":")
                self._loaded[name] = getattr(import_module(module), attribute)
            elif name in self._foreign:
                self._loaded[name] = self._load_foreign(self._foreign[name])
            else:
                raise UnknownChoiceError(self.kind, name, self)
        return self._loaded[name]

    def own(self) -> Iterator[type[C]]:
        """Import and yield every choice of ours, for docs and tests."""
        return (self[name] for name in self._own)

    def usable(self) -> Iterator[type[C]]:
        """Import and yield every choice; those that other packages break are left out."""
        yield from self.own()
        for name in self._foreign:
            with suppress(ConfigError):
                yield self[name]

    def refresh(self) -> None:
        """Look for other packages' choices anew, after one was installed or removed."""
        for name in self.__dict__.pop("_foreign", {}):
            self._loaded.pop(name, None)

    def _load_foreign(self, point: EntryPoint) -> type[C]:
        package = point.dist.name if point.dist else point.value
        try:
            choice = point.load()
        except Exception as error:
            raise ConfigError(
                f"{self.kind} {point.name}: the package {package} that provides it cannot be "
                f"imported: {type(error).__name__}: {error}; repair or remove the package"
            ) from error
        if not (isinstance(choice, type) and issubclass(choice, Choice)):
            raise ConfigError(
                f"{self.kind} {point.name}: the package {package} must provide a subclass of "
                f"pkgllm.registry.Choice, got {choice!r}; repair or remove the package"
            )
        if (default := choice.__dataclass_fields__["name"].default) != point.name:
            raise ConfigError(
                f"{self.kind} {point.name}: the package {package} must give {choice.__name__} this "
                f"name, got {default!r}; repair or remove the package"
            )
        return choice  # type: ignore[return-value]  # of the kind that its group is for
