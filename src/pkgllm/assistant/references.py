"""What *it*, *both*, *the second one* or *all except the last* refer to.

A reference is to titles that the person named before, or to those that were offered.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pkgllm.assistant.lexicon import entry_at

Number = Literal["one", "all", "places", "others", "nearest"]


@dataclass(frozen=True, slots=True)
class Reference:
    """One expression that refers to titles without naming them."""

    number: Number
    """``one`` is *it*; ``all`` is *both*, *them*; ``places`` is *the first two*; ``others`` is *the
    rest*; ``nearest`` is *which*."""
    places: tuple[int, ...] = ()
    """From 0; negative ones count from the end."""
    count: int | None = None
    """How many there must be: two for *both*."""

    def of(self, titles: Sequence[object]) -> tuple[int, ...] | None:
        """Return the places in a list that are meant, or None if that is not certain.

        Example:
            >>> offered = ["A", "B", "C"]
            >>> Reference("places", (-1,)).of(offered), Reference("all", count=2).of(offered)
            ((2,), None)
        """
        size = len(titles)
        if self.number == "one":
            return (0,) if size == 1 else None
        if self.number == "nearest":
            return (size - 1,) if size else None
        if self.number == "all":
            # "I don't like those" after one title is about a kind of film.
            right = size > 1 if self.count is None else size == self.count
            return tuple(range(size)) if right else None
        places = [place + size if place < 0 else place for place in self.places]
        if not places or any(not 0 <= place < size for place in places):
            return None
        return tuple(places)


_ORDINALS = {
    **dict.fromkeys(("first", "1st"), 0),
    **dict.fromkeys(("second", "2nd"), 1),
    **dict.fromkeys(("third", "3rd"), 2),
    **dict.fromkeys(("fourth", "4th"), 3),
    **dict.fromkeys(("fifth", "5th"), 4),
    **dict.fromkeys(("sixth", "6th"), 5),
    **dict.fromkeys(("seventh", "7th"), 6),
    **dict.fromkeys(("eighth", "8th"), 7),
    **dict.fromkeys(("ninth", "9th"), 8),
    **dict.fromkeys(("tenth", "10th"), 9),
    "last": -1,
    "final": -1,
}
_NUMBERS = {"one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7}
_NUMBERS |= {"eight": 8, "nine": 9, "ten": 10}
_TITLE_NOUNS = frozenset(
    (
        "one",
        "ones",
        "movie",
        "movies",
        "film",
        "films",
        "flick",
        "flicks",
        "pick",
        "picks",
        "suggestion",
        "suggestions",
        "title",
        "titles",
        "recommendation",
        "recommendations",
        "option",
        "options",
        "choice",
        "choices",
        "entry",
        "item",
    )
)
_SINGULAR_NOUNS = frozenset(("one", "movie", "film", "flick", "title", "picture"))
_PLURAL_NOUNS = frozenset(("ones", "movies", "films", "flicks", "titles", "pictures"))
_BEFORE_BOTH = frozenset(("are", "were", "\u25a1", "is", "we", "they"))
_AFTER_A_PRONOUN = frozenset(("copula", "do", "verb", "intransitive", "saw", "not", "interest"))


def reference_at(words: Sequence[str], place: int) -> tuple[Reference | None, int]:
    """Return the reference that begins at a place, and its number of words.

    Example:
        >>> reference_at("the first two were great".split(), 0)
        (Reference(number='places', places=(0, 1), count=None), 3)
        >>> reference_at("the first time".split(), 0)
        (None, 0)
    """
    for read in (_ordinal, _numbered, _several, _pronoun):
        reference, length = read(words, place)
        if reference is not None:
            return reference, length
    return None, 0


def _at(words: Sequence[str], place: int) -> str:
    return words[place] if 0 <= place < len(words) else ""


def _ordinal(words: Sequence[str], place: int) -> tuple[Reference | None, int]:
    at = place
    article = _at(words, at) in ("the", "your")
    at += article
    word = _at(words, at)
    if article and word in ("former", "latter"):
        return Reference("places", (0 if word == "former" else -1,), 2), at + 1 - place
    if article and word in ("middle",) and _at(words, at + 1) in _TITLE_NOUNS:
        return Reference("places", (1,), 3), at + 2 - place
    if word not in _ORDINALS:
        return None, 0
    first = _ORDINALS[word]
    at += 1
    if (many := _NUMBERS.get(_at(words, at), 1)) > 1:
        places = tuple(range(many)) if first == 0 else tuple(range(-many, 0))
        if first not in (0, -1):
            return None, 0
        at += 1
        at += _at(words, at) in _TITLE_NOUNS
        return Reference("places", places), at - place
    if _at(words, at) in _TITLE_NOUNS:
        return Reference("places", (first,)), at + 1 - place
    following = _at(words, at)
    entry, _ = entry_at(words, at) if following else (None, 1)
    ends = not re.match(r"\w", following) or (
        entry is not None and entry.kind not in ("aspect", "film", "filler", "other")
    )
    # "the first was great", "the first."; but "the first time", "the last scene".
    after_another = (
        _at(words, place - 1) in ("and", "or", ",") and _at(words, place - 2) in _ORDINALS
    )
    if (article or after_another) and (
        ends or following in ("a", "really", "just", "of", "though", "too", "already")
    ):
        if following == "of":
            return None, 0
        return Reference("places", (first,)), at - place
    return None, 0


def _numbered(words: Sequence[str], place: int) -> tuple[Reference | None, int]:
    word = _at(words, place)
    if re.fullmatch(r"#\d{1,2}", word):
        return Reference("places", (int(word[1:]) - 1,)), 1
    if word in ("number", "no", "nr", "option"):
        named = _at(words, place + 1)
        number = _NUMBERS.get(named) or (int(named) if re.fullmatch(r"\d{1,2}", named) else None)
        if number is not None and _at(words, place + 2) not in _TITLE_NOUNS:
            return Reference("places", (number - 1,)), 2
    return None, 0


def _several(words: Sequence[str], place: int) -> tuple[Reference | None, int]:
    word, following = _at(words, place), _at(words, place + 1)
    if word == "the" and following in ("rest", "others"):
        length = 4 if _at(words, place + 2) == "of" else 2
        return Reference("others"), length
    if word == "the" and following == "other":
        noun = _at(words, place + 2)
        if (many := _NUMBERS.get(noun, 0)) > 1:
            return Reference("others", count=many), 3
        if noun in _TITLE_NOUNS:
            return Reference("others", count=1 if noun in _SINGULAR_NOUNS else None), 3
    count = {"both": 2}.get(word)
    if word in ("all", "both", "each", "none", "neither", "most") or (
        word == "every" and following == "one"
    ):
        at = place + (2 if word == "every" else 1)
        if word == "all" and (many := _NUMBERS.get(_at(words, at), 0)):
            count, at = many, at + 1
        if word == "neither":
            count = 2
        of = _at(words, at) == "of"
        at += of
        if _at(words, at) in ("them", "these", "those", "they", "the"):
            named = _at(words, at) != "the"
            at += 1
            if (many := _NUMBERS.get(_at(words, at), 0)) > 1:
                count, at, named = many, at + 1, True
            if _at(words, at) in _PLURAL_NOUNS:
                named, at = True, at + 1
            if not named or word == "most":
                return None, 0
            if word in ("none", "neither"):
                return None, 0
            return Reference("all", count=count), at - place
        if word in ("none", "neither", "most", "each") or of:
            return None, 0
        if word == "all" and count is None and _at(words, at) not in ("except", "but", "apart", ""):
            return None, 0
        # "both A and B" names the titles itself, and so does "A and B are both".
        if word == "both" and (_at(words, at) == "\u25a1" or _at(words, place - 1) in _BEFORE_BOTH):
            return None, 0
        return Reference("all", count=count), at - place
    return None, 0


def _pronoun(words: Sequence[str], place: int) -> tuple[Reference | None, int]:
    word, following = _at(words, place), _at(words, place + 1)
    if word in ("this", "that", "the") and following in _SINGULAR_NOUNS:
        if word == "the" and following == "one":
            return None, 0
        return Reference("one"), 2
    if word in ("these", "those", "the") and following in _PLURAL_NOUNS:
        return (None, 0) if word == "the" else (Reference("all"), 2)
    if word in ("these", "those") and (many := _NUMBERS.get(following, 0)) > 1:
        return Reference("all", count=many), 2
    if word == "it":
        return Reference("one"), 1
    if word in ("them", "they"):
        return Reference("all"), 2 if following in ("all", "both") else 1
    if word in ("that", "this", "these", "those"):
        entry, _ = entry_at(words, place + 1) if following else (None, 1)
        if not re.match(r"\w", following) or (entry is not None and entry.kind in _AFTER_A_PRONOUN):
            return Reference("one" if word in ("that", "this") else "all"), 1
    return None, 0
