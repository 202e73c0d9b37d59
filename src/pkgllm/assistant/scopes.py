"""The scopes of rules and constraints: sets of items that share a property.

A scope is any relation of the catalogue's public facts, or one of

- ``person``: any of the relations to people, :data:`PERSON_RELATIONS`;
- ``decade``: ten years by the year in the name, ``1990s``;
- ``franchise``: names with the same beginning up to a number, a colon or a word such as ``Part``;
- ``keyword``: a word or phrase in the title or in a public value, singular or plural.
"""

import difflib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property

from pkgllm.corpora.catalogue import Catalogue, Item, bare_title, year_of
from pkgllm.errors import ConfigError, DataError

PERSON_RELATIONS = ("director", "star", "writer")

_WORD = re.compile(r"\w+")
_DECADE = re.compile(r"(?:(\d\d)?(\d)0(?:'?s)?)", re.IGNORECASE)
_SEQUEL = re.compile(
    r"\s*(?::|\s-\s|\b(?:part|episode|chapter|volume|vol)\b|\b[ivx]+$|\b\d+$).*", re.IGNORECASE
)
_SUGGESTIONS = 3


def decade_of(name: str) -> str | None:
    """Return the decade of the year in a name, or None.

    Example:
        >>> decade_of("The Last Harbour (1995)"), decade_of("Gazpacho")
        ('1990s', None)
    """
    year = year_of(name)
    return None if year is None else f"{year // 10 * 10}s"


def franchise_of(name: str) -> str:
    """Return the part of a name that its sequels share.

    Example:
        >>> for name in ("Alien 3 (1992)", "Rocky IV (1985)", "Dune: Part Two (2024)", "Up (2009)"):
        ...     print(franchise_of(name))
        Alien
        Rocky
        Dune
        Up
    """
    title = bare_title(name)
    # A title that is only a number is itself.
    return _SEQUEL.sub("", title).strip() or title


class Scopes:
    """Looks up the items of a catalogue by their properties.

    Args:
        catalogue: The items with their public facts.

    Example:
        >>> dishes = Catalogue([
        ...     Item("1", "Gazpacho", {"ingredient": ("tomato", "cucumber")}),
        ...     Item("2", "Flatbread", {"ingredient": ("flour",)}),
        ... ])
        >>> scopes = Scopes(dishes)
        >>> scopes.resolve("tomatoes"), scopes.items("ingredient", "Tomato")
        (('ingredient', 'tomato'), frozenset({'1'}))
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The scopes with a list of values, in the order of the search in :meth:`resolve`."""
        relations = sorted({relation for item in self.catalogue for relation in item.facts})
        others = [relation for relation in relations if relation not in PERSON_RELATIONS]
        person = ["person"] if len(others) < len(relations) else []
        return (*others, *person, "decade", "franchise")

    def values(self, item: Item) -> Iterator[tuple[str, str]]:
        """Yield each scope of :attr:`names` and value that contains an item, once."""
        people: dict[str, None] = {}
        for relation, values in item.facts.items():
            if relation in PERSON_RELATIONS:
                people.update(dict.fromkeys(values))
            else:
                yield from ((relation, value) for value in values)
        yield from (("person", person) for person in people)
        if (decade := decade_of(item.name)) is not None:
            yield "decade", decade
        yield "franchise", franchise_of(item.name)

    def items(self, scope: str, value: str) -> frozenset[str]:
        """Return the ids of the items inside a scope.

        Raises:
            ConfigError: If the catalogue has no such scope.
            DataError: If no item is inside; the message suggests close spellings.
        """
        if scope in PERSON_RELATIONS and "person" in self.names:
            inside = {
                item.id for item in self.catalogue if _among(value, item.facts.get(scope, ()))
            }
            known: Iterable[str] = (v for i in self.catalogue for v in i.facts.get(scope, ()))
        elif scope == "keyword":
            phrase = stems(value)
            inside = {item.id for item in self.catalogue if self._mentions(item, phrase)}
            known = ()
        elif scope in self.names:
            inside = self._items_by_value[scope].get(_key(scope, value), set())
            known = self._spellings[scope].values()
        else:
            raise ConfigError(
                f"scope {scope!r}: the catalogue must have it; it has "
                f"{', '.join((*self.names, 'keyword'))}"
            )
        if not inside:
            raise DataError(
                f"{scope} {value!r}: no item of the catalogue has it"
                f"{_suggest(value, known)}; name another"
            )
        return frozenset(inside)

    def resolve(self, text: str) -> tuple[str, str]:
        """Return the scope and value for a free text: a public value, a franchise, or a keyword.

        The scopes are searched in the order of :attr:`names` for the longest value whose words are
        in the text, singular or plural. A franchise must have two items.

        Raises:
            DataError: If nothing in the catalogue matches; the message suggests close spellings.
        """
        words = stems(text)
        for scope in self.names:
            matching = [
                (len(stems(spelling)), spelling)
                for key, spelling in self._spellings[scope].items()
                if _contains(words, stems(spelling))
                and (scope != "franchise" or len(self._items_by_value[scope][key]) > 1)
            ]
            if matching:
                return scope, max(matching, key=lambda pair: (pair[0], pair[1]))[1]
        if words and any(self._mentions(item, words) for item in self.catalogue):
            return "keyword", text
        known = (spelling for by_key in self._spellings.values() for spelling in by_key.values())
        raise DataError(
            f"{text!r}: nothing in the catalogue of {len(self.catalogue)} items matches it"
            f"{_suggest(text, known)}; name a value of {', '.join(self.names)} or a title's word"
        )

    @cached_property
    def _items_by_value(self) -> dict[str, dict[str, set[str]]]:
        items: dict[str, dict[str, set[str]]] = {scope: {} for scope in self.names}
        for item in self.catalogue:
            for scope, value in self.values(item):
                items[scope].setdefault(_key(scope, value), set()).add(item.id)
        return items

    @cached_property
    def _spellings(self) -> dict[str, dict[str, str]]:
        """The first spelling of each value, by scope and key."""
        spellings: dict[str, dict[str, str]] = {scope: {} for scope in self.names}
        for item in self.catalogue:
            for scope, value in self.values(item):
                spellings[scope].setdefault(_key(scope, value), value)
        return spellings

    @cached_property
    def public_values(self) -> tuple[tuple[str, str, tuple[str, ...]], ...]:
        """Each value that is no person, decade or franchise, with its scope and stems."""
        others = {"person", "decade", "franchise"}
        return tuple(
            (scope, value, stems(value))
            for scope in self.names
            if scope not in others
            for value in self._spellings[scope].values()
        )

    def _mentions(self, item: Item, phrase: Sequence[str]) -> bool:
        if not phrase:
            return False
        texts = [bare_title(item.name), *(v for values in item.facts.values() for v in values)]
        return any(_contains(stems(text), phrase) for text in texts)


def _key(scope: str, value: str) -> str:
    if scope == "decade" and (match := _DECADE.fullmatch(value.strip())):
        century = match[1] or ("20" if match[2] in "012" else "19")
        return f"{century}{match[2]}0s"
    return _fold(franchise_of(value) if scope == "franchise" else value)


def _fold(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _among(value: str, values: Iterable[str]) -> bool:
    return _fold(value) in {_fold(other) for other in values}


def stems(text: str) -> tuple[str, ...]:
    """Return the words of a text in the singular, by their last letters.

    Example:
        >>> stems("Comedies about CATS, glass and a tomato"), stems("tomatoes")
        (('comedy', 'about', 'cat', 'glass', 'and', 'a', 'tomato'), ('tomato',))
    """
    return tuple(_singular(word) for word in _WORD.findall(_fold(text)))


def _singular(word: str) -> str:
    if len(word) > 4 and word.endswith("ies"):
        return f"{word[:-3]}y"
    if len(word) > 4 and word.endswith("oes"):
        return word[:-2]
    return word[:-1] if len(word) > 3 and word.endswith("s") and word[-2] not in "su" else word


def _contains(words: Sequence[str], phrase: Sequence[str]) -> bool:
    """Return whether a text contains a phrase, word after word."""
    last = len(words) - len(phrase)
    return any(words[at : at + len(phrase)] == phrase for at in range(last + 1)) and bool(phrase)


def _suggest(value: str, known: Iterable[str]) -> str:
    by_key = {_fold(spelling): spelling for spelling in known}
    close = difflib.get_close_matches(_fold(value), by_key, n=_SUGGESTIONS)
    return f" (did you mean {', '.join(by_key[key] for key in close)}?)" if close else ""
