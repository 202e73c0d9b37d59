"""Find items by name: exactly, then by letters alone, then by similar spelling."""

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence

from rapidfuzz import fuzz, process

from pkgllm.corpora.catalogue import Item, bare_title
from pkgllm.corpora.sameness import SameItems
from pkgllm.errors import DataError

_SUGGESTIONS = 3
_CLOSE = 60.0
"""Least similarity of a suggested spelling, of 100."""

_INVERTED = re.compile(
    r"^(?P<title>.+),\s*(?P<article>the|a|an|le|la|les|der|die|das|el)(?P<year>\s*\(\d{4}\))?$",
    re.IGNORECASE,
)
_ARTICLE = re.compile(r"^(?:the|a|an) (?=.)")


def letters(text: str) -> str:
    """Return the letters and digits of a text in lower case, with one blank between words.

    Example:
        >>> letters("Léon: The Professional  (1994)"), letters("Fast & Furious"), letters("WALL·E")
        ('leon the professional 1994', 'fast and furious', 'wall e')
    """
    plain = unicodedata.normalize("NFKD", text.replace("&", " and "))
    base = "".join(sign for sign in plain if not unicodedata.combining(sign))
    # An apostrophe does not separate words: "don't" equals "dont".
    base = re.sub(r"['\u2018\u2019]", "", base.casefold())
    return " ".join(re.findall(r"[^\W_]+", base))


def without_article(text: str) -> str:
    """Return letters without the article at their beginning, unless nothing else is left.

    Example:
        >>> without_article("the matrix"), without_article("a"), without_article("them")
        ('matrix', 'a', 'them')
    """
    return _ARTICLE.sub("", text)


def upright(text: str) -> str:
    """Return a title with its article in front.

    Example:
        >>> upright("Matrix, The (1999)"), upright("Heat (1995)")
        ('The Matrix (1999)', 'Heat (1995)')
    """
    match = _INVERTED.match(text.strip())
    if match is None:
        return text
    return f"{match['article']} {match['title']}{match['year'] or ''}"


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
"""Keys of a text and of a name that are compared; each step is more tolerant than the last."""


def _one_entry_each(items: Iterable[Item]) -> tuple[Item, ...]:
    listed = tuple(items)
    if any(item.name.endswith(f"[{item.id}]") for item in listed):
        # Told apart by whoever made the catalogue: the person says which one is meant.
        return listed
    same = SameItems(listed)
    return tuple(item for item in listed if same.first(item.id) == item.id)


class Linker:
    """Finds items by name.

    Names are compared exactly, then by :func:`letters`, then without article, then without year;
    the first comparison with a match decides. Of several entries of one item the first is meant.

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
                for name in {item.name, upright(item.name)}:
                    by_key.setdefault(of_name(name), []).append(item)
            self._steps.append((of_text, by_key))
        self._spellings = (
            [letters(item.name) for item in self._items],
            [letters(bare_title(item.name)) for item in self._items],
        )

    def matches(self, text: str) -> tuple[Item, ...]:
        """Return the items that the text may mean: none, one, or several with one name."""
        for of_text, by_key in self._steps:
            for written in (text, upright(text)):
                if (key := of_text(written)) and (items := by_key.get(key)):
                    return _one_entry_each({item.id: item for item in items}.values())
        return ()

    def resolve(self, text: str) -> Item:
        """Return the only item that the text may mean.

        Raises:
            DataError: If there is none, with close spellings, or there are several, with all names.
        """
        items = self.matches(text)
        if len(items) == 1:
            return items[0]
        if items:
            names = ", ".join(sorted(item.name for item in items))
            raise DataError(f"{text!r} may be any of {names}; give the whole name")
        similar = ", ".join(item.name for item in self.close(text))
        raise DataError(
            f"no item is called {text!r}" + (f"; close are: {similar}" if similar else "")
        )

    def close(self, text: str, *, least: float = _CLOSE) -> Sequence[Item]:
        """Return the items with the most similar names, most similar first.

        The similarity is :func:`rapidfuzz.fuzz.ratio` between the letters of the text and of the
        name with or without its year, from 0 to 100.

        Args:
            text: Any text.
            least: Least similarity.
        """
        best: dict[int, float] = {}
        for spellings in self._spellings:
            for _, score, place in process.extract(
                letters(text), spellings, scorer=fuzz.ratio, limit=_SUGGESTIONS, score_cutoff=least
            ):
                best[place] = max(score, best.get(place, 0.0))
        nearest = sorted(best, key=lambda place: (-best[place], self._items[place].name))
        return [self._items[place] for place in nearest[:_SUGGESTIONS]]
