"""Constraints on recommendations, which public facts decide."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pkgllm.assistant.scopes import Scopes
from pkgllm.corpora.catalogue import year_of
from pkgllm.errors import ConfigError

Property = tuple[str, str]
"""A scope and a value of it, for example ``("genre", "comedy")``."""


@dataclass(frozen=True, slots=True)
class Constraints:
    """What a recommendation must and must not be.

    Raises:
        ConfigError: If the first year is later than the last one.

    Example:
        >>> Constraints((("genre", "comedy"),), (("person", "Ann Lee"),), 1990, 1999).words
        'Only genre comedy. Not with Ann Lee. From 1990. Until 1999.'
    """

    required: tuple[Property, ...] = ()
    """Properties that an item must have."""
    excluded: tuple[Property, ...] = ()
    """Properties that an item must not have."""
    from_year: int | None = None
    """First year; excludes items without a year in their name, as ``to_year`` does."""
    to_year: int | None = None
    """Last year."""

    def __post_init__(self) -> None:
        if None not in (self.from_year, self.to_year) and self.from_year > self.to_year:  # type: ignore[operator]
            raise ConfigError(
                f"years must run from the first to the last, got {self.from_year} to "
                f"{self.to_year}; swap them"
            )

    def __bool__(self) -> bool:
        return self != Constraints()

    @property
    def words(self) -> str:
        """The constraints as sentences for the prompt."""
        return " ".join(self._sentences())

    def _sentences(self) -> Iterator[str]:
        yield from (f"Only {in_words(*pair)}." for pair in self.required)
        yield from (f"Not {in_words(*pair)}." for pair in self.excluded)
        if self.from_year is not None:
            yield f"From {self.from_year}."
        if self.to_year is not None:
            yield f"Until {self.to_year}."

    def allowed(self, scopes: Scopes) -> NDArray[np.bool_]:
        """Return which items of a catalogue meet every constraint, shape ``(len(catalogue),)``.

        Raises:
            ConfigError: If the catalogue has no such scope.
            DataError: If no item has a value.
        """
        catalogue = scopes.catalogue
        mask = np.ones(len(catalogue), dtype=bool)
        for properties, wanted in ((self.required, True), (self.excluded, False)):
            for scope, value in properties:
                inside = scopes.items(scope, value)
                mask &= np.array([(item.id in inside) is wanted for item in catalogue])
        if self.from_year is not None or self.to_year is not None:
            first, last = self.from_year or 0, self.to_year or np.inf
            years = [year_of(name) for name in catalogue.names]
            mask &= np.array([year is not None and first <= year <= last for year in years])
        return mask


def in_words(scope: str, value: str) -> str:
    """Return a property in words for the prompt.

    Example:
        >>> in_words("genre", "comedy"), in_words("person", "Ann Lee")
        ('genre comedy', 'with Ann Lee')
    """
    return f"with {value}" if scope == "person" else f"{scope} {value}"
