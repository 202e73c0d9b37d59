"""The words of ``lexicon.toml``: those of opinions, and those that decide what they mean.

Every entry is a word or a phrase as :mod:`pkgllm.assistant.tokens` writes it. The longest entry at
a place counts, so *no doubt* contains no negation.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

Kind = Literal[
    "verb",  # its object is what the opinion is about: *loved*
    "adjective",  # its subject is: *was great*, *a masterpiece*
    "intransitive",  # its subject is: *sucks*
    "saw",
    "not seen",
    "not",
    "unreal",
    "hearsay",
    "interest",
    "request",
    "compare",
    "and",
    "or",
    "nor",
    "but",
    "except",
    "clause",
    "own",
    "other",
    "my",
    "think",
    "aspect",
    "film",
    "talk",
    "copula",
    "do",
    "like",
    "too",
    "filler",
    "that",
    "by",
    "question",
]
Polarity = Literal["liked", "disliked", "seen"]


@dataclass(frozen=True, slots=True)
class Entry:
    """What a word or phrase does in a clause."""

    kind: Kind
    polarity: Polarity | None = None
    """Of a verdict: what it says where nothing negates it."""
    negated: Polarity | None = None
    """What it says where one word negates it; None if that is not certain."""
    sure: bool = True
    """Whether the word alone, unnegated, is a certain verdict."""
    third: bool = False
    """A verb of the third person, which *I* cannot be the subject of."""


@cache
def _lexicon() -> Mapping[str, Any]:
    return tomllib.loads(Path(__file__).with_name("lexicon.toml").read_text(encoding="utf-8"))


@cache
def phrases(table: str, name: str) -> frozenset[tuple[str, ...]]:
    """Return a list of phrases of the lexicon that are no entries.

    Args:
        table: ``phrases`` or ``titles``.
        name: Of the list.
    """
    return frozenset(_listed(_lexicon()[table][name]))


@cache
def word_list(table: str, name: str) -> frozenset[str]:
    """Return those of :func:`phrases` that are single words."""
    return frozenset(phrase[0] for phrase in phrases(table, name) if len(phrase) == 1)


def _listed(text: str) -> Iterator[tuple[str, ...]]:
    # A comma may be a phrase itself.
    for phrase in re.split(r",\s+", text.strip()):
        yield tuple(phrase.split())


@cache
def _entries() -> Mapping[tuple[str, ...], Entry]:
    entries: dict[tuple[str, ...], Entry] = {}
    for table in _lexicon()["entries"]:
        entry = Entry(**{key: value for key, value in table.items() if key != "words"})
        entries |= dict.fromkeys(_listed(table["words"]), entry)
    return entries


@cache
def _longest() -> int:
    return max(map(len, _entries()))


def entry_at(said: Sequence[str], place: int) -> tuple[Entry | None, int]:
    """Return the longest entry at a place and its number of words; None and 1 for other words.

    Example:
        >>> said = "no doubt i loved it".split()
        >>> entry_at(said, 0)[0].kind, entry_at(said, 3)[0].polarity, entry_at(said, 4)
        ('filler', 'liked', (None, 1))
    """
    entries = _entries()
    for length in range(min(_longest(), len(said) - place), 1, -1):
        if (entry := entries.get(tuple(said[place : place + length]))) is not None:
            return entry, length
    return entries.get((said[place],)), 1
