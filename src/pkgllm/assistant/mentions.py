"""Find names of items and people in a text, exactly, then by similar spelling.

Words are compared by :func:`~pkgllm.assistant.linking.letters`. Because titles are often common
words, a title counts only

* with its year, or
* in quotes, or
* if it has three words or more, or
* in capitals, of which the first does not merely begin a sentence; a single word at the beginning
  counts before ``was``.

Other capitalised or quoted stretches are then compared by spelling.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from pkgllm.assistant.linking import Linker, letters, without_article
from pkgllm.assistant.scopes import PERSON_RELATIONS
from pkgllm.corpora.catalogue import Catalogue, Item, bare_title

Kind = Literal["item", "person"]

_WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*|&")
_SENTENCE_END = re.compile(r"(?:^|[.!?:\n])\s*[\"'\u201c]?\s*$")
_QUOTE = "\"\u201c'\u2018"
_SMALL = {"a", "an", "and", "at", "de", "for", "from", "in", "la", "of", "on", "or"}
_SMALL |= {"the", "to", "vs", "with"}
_PRONOUNS = {"he", "it", "she", "that", "there", "they", "this", "what", "everything", "nothing"}
_SPELLING = 88.0
"""Least similarity of a misspelt name, of 100."""
_SPELLING_LETTERS = 6
"""Shorter words are too similar to each other."""
_ANY_CASE_WORDS = 3


@dataclass(frozen=True, slots=True)
class Mention:
    """A stretch of a text that names an item or a person."""

    start: int
    end: int
    kind: Kind
    meant: tuple[Item, ...]
    """One item, or several with the same name."""
    exact: bool
    """Whether the name is spelt right."""


class _Word(NamedTuple):
    start: int
    end: int
    letters: str
    capital: bool


class MentionFinder:
    """Finds the items and people that texts name.

    Args:
        catalogue: The items; their public facts name the people.

    Example:
        >>> facts = {"star": ("Harrison Ford",)}
        >>> finder = MentionFinder(Catalogue([
        ...     Item("1", "Raiders of the Lost Ark (1981)", facts), Item("2", "Heat (1995)"),
        ... ]))
        >>> text = "I enjoy Harrison Ford, and loved Raders of the Lost Ark in this heat."
        >>> [(mention.meant[0].name, mention.exact) for mention in finder.find(text)]
        [('Harrison Ford', True), ('Raiders of the Lost Ark (1981)', False)]
    """

    def __init__(self, catalogue: Catalogue) -> None:
        people = {
            name
            for item in catalogue
            for relation in PERSON_RELATIONS
            for name in item.facts.get(relation, ())
            if " " in letters(name)
        }
        persons = [Item(name, name) for name in sorted(people)]
        self._linkers: Mapping[Kind, Linker] = {
            "item": Linker(catalogue),
            "person": Linker(persons),
        }
        self._whole: dict[str, list[Item]] = {}
        self._titles: dict[str, list[Item]] = {}
        for item in catalogue:
            whole, title = letters(item.name), letters(bare_title(item.name))
            _add(self._whole if whole != title else self._titles, whole, item)
            _add(self._titles, title, item)
            _add(self._titles, without_article(title), item)
        self._persons = {letters(person.name): [person] for person in persons}
        self._longest = max(
            len(key.split()) for keys in (self._whole, self._titles, self._persons) for key in keys
        )

    def find(self, text: str) -> tuple[Mention, ...]:
        """Return the mentions of a text, in order; no two overlap."""
        words = [
            _Word(match.start(), match.end(), letters(match[0]), match[0][0].isupper())
            for match in _WORD.finditer(text)
        ]
        taken = [False] * len(words)
        mentions = []
        for length in range(min(self._longest, len(words)), 0, -1):
            for first in range(len(words) - length + 1):
                if any(taken[first : first + length]):
                    continue
                mention = self._exactly(text, words[first : first + length])
                if mention is not None:
                    taken[first : first + length] = [True] * length
                    mentions.append(mention)
        misspelt = (self._by_spelling(run) for run in _runs(text, words, taken))
        mentions += [mention for mention in misspelt if mention is not None]
        return tuple(sorted(mentions, key=lambda mention: mention.start))

    def _exactly(self, text: str, words: list[_Word]) -> Mention | None:
        key = " ".join(word.letters for word in words)
        start, end = words[0].start, words[-1].end
        if (meant := self._whole.get(key)) is not None:
            closing = 1 if text[end : end + 1] in (")", "]") else 0
            return Mention(start, end + closing, "item", tuple(meant), True)
        if (meant := self._persons.get(key)) is not None:
            return Mention(start, end, "person", tuple(meant), True)
        meant = self._titles.get(key)
        if meant is not None and _is_a_title(text, words, key, meant):
            return Mention(start, end, "item", tuple(meant), True)
        return None

    def _by_spelling(self, run: list[_Word]) -> Mention | None:
        # The first word may merely begin a sentence.
        for words in (run, run[1:]):
            called = " ".join(word.letters for word in words)
            if len(called) < _SPELLING_LETTERS:
                continue
            for kind, linker in self._linkers.items():
                if kind == "person" and len(words) < 2:
                    continue
                for item in linker.close(called, least=_SPELLING)[:1]:
                    return Mention(words[0].start, words[-1].end, kind, (item,), False)
        return None


def _add(by_key: dict[str, list[Item]], key: str, item: Item) -> None:
    if key and item not in by_key.setdefault(key, []):
        by_key[key].append(item)


def _is_a_title(text: str, words: list[_Word], key: str, meant: Iterable[Item]) -> bool:
    before = text[: words[0].start]
    if before[-1:] and before[-1] in _QUOTE:
        return True
    whole_title = any(letters(bare_title(item.name)) == key for item in meant)
    if len(words) >= _ANY_CASE_WORDS and whole_title:
        return True
    begins_sentence = _SENTENCE_END.search(before) is not None
    capitals = [word.capital for word in words if word.letters not in _SMALL]
    if not capitals or not all(capitals):
        return False
    if not begins_sentence or len(words) > 1:
        return True
    return key not in _PRONOUNS and re.match(r"\s+was\b", text[words[-1].end :]) is not None


def _runs(text: str, words: list[_Word], taken: list[bool]) -> Iterator[list[_Word]]:
    """Yield stretches of words with capitals, small words between them included."""
    run: list[_Word] = []
    for word, is_taken in zip(words, taken, strict=True):
        apart = bool(run) and text[run[-1].end : word.start].strip(" -:',\u2019") != ""
        if is_taken or apart or not (word.capital or (run and word.letters in _SMALL)):
            yield from _trimmed(run)
            run = []
        if not is_taken and (word.capital or (run and word.letters in _SMALL)):
            run.append(word)
    yield from _trimmed(run)


def _trimmed(run: list[_Word]) -> Iterator[list[_Word]]:
    while run and not run[-1].capital:
        run = run[:-1]
    if run:
        yield run
