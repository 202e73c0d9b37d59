"""Whether the letters of a title in a text mean the title.

Because titles are often common words, a title is certain only if it stands

* with its year (which :mod:`~pkgllm.assistant.mentions` decides), or
* in quotes, or
* with capitals inside a sentence, with several anywhere, or as one word that begins a sentence
  and is followed by a verb such as *was*.

A title in lower case, one word at the beginning of a sentence, a number, or common words (*Talk to
Me*) have to be asked about, and only where a word such as *saw* or *loved* stands in front, or
*was* behind. In a text that is written in capitals, capitals mean nothing. One common word
(*Awesome*) is no title without a year, a quote or a capital inside a sentence.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from pkgllm.assistant.lexicon import word_list

_SHOUTED = 0.6
"""Least share of the words that are all capitals."""
_JOINED_WITHIN = 10
"""Characters between two titles of a list."""
_LEAST_LETTERS = 2
"""One letter alone is no title."""
_QUOTES = "\"\u201c\u201d'\u2018\u2019\u00ab\u00bb"
_SENTENCE_END = re.compile(r"(?:^|[.!?:;\n,\u2026(]|\s[-\u2013\u2014])\s*[\"'\u201c]?\s*$")
SMALL_WORDS = {"a", "an", "and", "at", "de", "for", "from", "in", "la", "of", "on", "or"}
SMALL_WORDS |= {"the", "to", "vs", "with"}
_NOT = r"(?:n['\u2019]?t)?"
_BEHIND = re.compile(
    rf"^\s*(?:['\u2019]s\s+(?!\w+['\u2019]?s\b)|(?:(?:was|is|were|are){_NOT}|sucks?|sucked|rocks?|rocked"
    r"|bored|rules?|ruled|blew|stinks?|stank|made me|left me|did nothing)\b)",
    re.IGNORECASE,
)
_VERB = re.compile(
    rf"^\s*(?:(?:was|is|did|does){_NOT}|never|always|really|sucks?|sucked|rocks?|rocked|rules?|bored"
    r"|blew|put me|left me|made me|moved|has|had|turned out)\b|^\s*[:\u2013\u2014]|^\s-\s",
    re.IGNORECASE,
)
_STARTS = re.compile(
    r"(?:^|[.!?;,\n]|\b(?:but|and|think|thought|that|say|found|while|unlike|because))\s*(?:the\s+)?$",
    re.IGNORECASE,
)
_COUNTED = re.compile(
    r"\s*(?:times?|years?|minutes?|hours?|movies?|films?|of|or|days?|stars?|more|other)\b|\s*[%/]",
    re.IGNORECASE,
)
_JOINED = re.compile(r"(?:,|\band|\bor|\bnor|&|,\s*and|\bbut not|\bbut|\bnot)\s*$", re.I)


class Word(NamedTuple):
    """A word of a text."""

    start: int
    end: int
    letters: str
    """As compared."""
    capital: bool
    """Whether it has a capital that means something."""


def begins_sentence(before: str) -> bool:
    """Return whether a text ends where a sentence or a clause begins."""
    return _SENTENCE_END.search(before) is not None


def is_shouted(text: str) -> bool:
    """Return whether most of a text is in capitals, so that they mean nothing."""
    cased = [w for w in re.findall(r"[^\W\d_]{2,}", text) if w.upper() != w.lower()]
    capital = sum(word.isupper() for word in cased)
    return bool(capital >= 2 and capital > _SHOUTED * len(cased))


def certainty(text: str, words: Sequence[Word], earlier_ends: Sequence[int]) -> bool | None:
    """Return whether a title is certainly meant; None if it is not even worth a question.

    Args:
        text: The whole text.
        words: Those of the title.
        earlier_ends: Where the longer titles in the text end.
    """
    before, after = text[: words[0].start], text[words[-1].end :]
    if before[-1:] and before[-1] in _QUOTES and after[:1] and after[0] in _QUOTES:
        return True
    content = [word for word in words if word.letters not in SMALL_WORDS]
    uncommon = [word for word in content if word.letters not in word_list("titles", "common")]
    single = len(content) < 2 and not any(word.letters.isdigit() for word in content)
    listed = _is_listed(before, earlier_ends)
    begins = begins_sentence(before) and not listed
    slot = listed or _in_a_slot(before, after)
    number = words[-1].letters.isdigit()
    if words[-1].end - words[0].start < _LEAST_LETTERS or (number and _COUNTED.match(after)):
        return None
    if all(word.letters.isdigit() for word in words):
        return False if slot else None
    if content and all(word.capital or word.letters.isdigit() for word in content):
        if uncommon:
            several = len(words) > 1 and (words[-1].capital or number)
            return not begins or several or _VERB.match(after) is not None
        if single:
            # "I LOVE that" names no film.
            shouted = any(text[word.start : word.end].isupper() for word in words)
            return False if slot and not begins and not shouted else None
        return True if not begins else (False if slot else None)
    if single:
        return False if uncommon and slot else None
    return False if slot or len(uncommon) > 1 or (uncommon and len(content) > 1) else None


def _is_listed(before: str, earlier_ends: Sequence[int]) -> bool:
    """Return whether a conjunction or a comma joins the place to another title."""
    return _JOINED.search(before) is not None and any(
        0 <= len(before) - end <= _JOINED_WITHIN and not re.search(r"[.!?]", before[end:])
        for end in earlier_ends
    )


def _in_a_slot(before: str, after: str) -> bool:
    """Return whether the words around are those around a title."""
    if _BEHIND.match(after) and _STARTS.search(before):
        return True
    tokens = re.findall(r"[^\W_]+", before.casefold())
    while tokens and tokens[-1] in word_list("titles", "skipped"):
        tokens.pop()
    if len(tokens) > 1 and tokens[-1] == "of":
        return tokens[-2] in word_list("titles", "before_of")
    gap = before.rstrip()
    return bool(tokens) and gap[-1:].isalnum() and tokens[-1] in word_list("titles", "before")
