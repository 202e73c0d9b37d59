"""Find items by what people call them: exactly, then by their letters alone, then by spelling."""

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence

from rapidfuzz import fuzz, process

from pkgllm.corpora.catalogue import Item, bare_title
from pkgllm.errors import DataError

_OFFERED = 3
_CLOSE = 60.0
"""Least similarity of a spelling that is offered, of 100."""

_ARTICLE = re.compile(r"^(?:the|a|an) (?=.)")


def letters(text: str) -> str:
    """Return the letters and digits of a text in lower case, with one blank between words.

    Example:
        >>> letters("Léon: The Professional  (1994)"), letters("Fast & Furious"), letters("WALL·E")
        ('leon the professional 1994', 'fast and furious', 'wall e')
    """
    plain = unicodedata.normalize("NFKD", text.replace("&", " and "))
    kept = "".join(sign for sign in plain if not unicodedata.combining(sign))
    # An apostrophe parts no words: "don't" and "dont" are one.
    kept = re.sub(r"['\u2018\u2019]", "", kept.casefold())
    return " ".join(re.findall(r"[^\W_]+", kept))


def without_article(text: str) -> str:
    """Return letters without the article at their beginning, or with it where nothing else is.

    Example:
        >>> without_article("the matrix"), without_article("a"), without_article("them")
        ('matrix', 'a', 'them')
    """
    return _ARTICLE.sub("", text)


def _plain(text: str) -> str:
    return without_article(letters(text))


_Key = Callable[[str], str]
_STEPS: tuple[tuple[_Key, _Key], ...] = (
    (str, str),
    (letters, letters),
    (_plain, _plain),
    (letters, lambda name: letters(bare_title(name))),
    (_plain, lambda name: _plain(bare_title(name))),
)
"""What is compared, of a text and of a name; each step forgives more than the one before it."""


class Linker:
    """Finds items by what people call them.

    A name is found exactly, then by :func:`letters`, then without its article, then without its
    year; the first of these that finds anything decides.

    Args:
        items: With distinct ids.

    Example:
        >>> linker = Linker([Item("1", "Heat (1995)"), Item("2", "The Omen (1976)")])
        >>> linker.resolve("heat").id, linker.resolve("Omen (1976)").id
        ('1', '2')
        >>> linker.resolve("Haet")
        Traceback (most recent call last):
        ...
        pkgllm.errors.DataError: no item is called 'Haet'; close are: Heat (1995)
    """

    def __init__(self, items: Iterable[Item]) -> None:
        self._items = tuple(items)
        self._steps: list[tuple[_Key, dict[str, list[Item]]]] = []
        for of_text, of_name in _STEPS:
            by_key: dict[str, list[Item]] = {}
            for item in self._items:
                by_key.setdefault(of_name(item.name), []).append(item)
            self._steps.append((of_text, by_key))
        self._spellings = (
            [letters(item.name) for item in self._items],
            [letters(bare_title(item.name)) for item in self._items],
        )

    def matches(self, text: str) -> tuple[Item, ...]:
        """Return what may be meant: none, one, or several that the text does not tell apart."""
        for of_text, by_key in self._steps:
            if (key := of_text(text)) and (found := by_key.get(key)):
                return tuple(found)
        return ()

    def resolve(self, text: str) -> Item:
        """Return the one item that is meant.

        Raises:
            DataError: If it is none, or several; close spellings or all of them are named.
        """
        found = self.matches(text)
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(sorted(item.name for item in found))
            raise DataError(f"{text!r} may be any of {names}; give the whole name")
        offered = ", ".join(item.name for item in self.close(text))
        raise DataError(
            f"no item is called {text!r}" + (f"; close are: {offered}" if offered else "")
        )

    def close(self, text: str, *, least: float = _CLOSE) -> Sequence[Item]:
        """Return the items with the most similar names, most similar first.

        The similarity is :func:`rapidfuzz.fuzz.ratio` between the letters of the text and of the
        name with or without its year, from 0 to 100.

        Args:
            text: What somebody wrote.
            least: Least similarity.
        """
        best: dict[int, float] = {}
        for spellings in self._spellings:
            for _, score, place in process.extract(
                letters(text), spellings, scorer=fuzz.ratio, limit=_OFFERED, score_cutoff=least
            ):
                best[place] = max(score, best.get(place, 0.0))
        nearest = sorted(best, key=lambda place: (-best[place], self._items[place].name))
        return [self._items[place] for place in nearest[:_OFFERED]]
