"""Find names of items and people in a text, exactly, then by similar spelling.

Words are compared by :func:`~pkgllm.assistant.linking.letters`. Whether a title is meant where its
letters stand is decided by :mod:`~pkgllm.assistant.evidence`. Other stretches with capitals are
compared by spelling, and always have to be asked about; so is a title without its subtitle.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pkgllm.assistant.evidence import SMALL_WORDS, Word, begins_sentence, certainty, is_shouted
from pkgllm.assistant.lexicon import word_list
from pkgllm.assistant.linking import Linker, letters
from pkgllm.assistant.scopes import PERSON_RELATIONS
from pkgllm.assistant.titles import inverted_forms, main_title, title_forms
from pkgllm.corpora.catalogue import Catalogue, Item, bare_title

Kind = Literal["item", "person"]

_WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*|&")
_POSSESSIVE = re.compile(r"['\u2019][sS]$")
_SPELLING = 88.0
"""Least similarity of a misspelt name, of 100."""
_SPELLING_LETTERS = 6
"""Shorter words are too similar to each other."""


@dataclass(frozen=True, slots=True)
class Mention:
    """A stretch of a text that names an item or a person."""

    start: int
    end: int
    kind: Kind
    meant: tuple[Item, ...]
    """One item, or several with the same name."""
    certain: bool
    """Whether nothing but this name can be meant; the name may still be that of several items."""


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
        >>> [(mention.meant[0].name, mention.certain) for mention in finder.find(text)]
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
        self._inverted: dict[str, list[Item]] = {}
        self._main: dict[str, list[Item]] = {}
        self._caseless: dict[str, list[Item]] = {}
        for item in catalogue:
            self._index(item)
        self._persons = {letters(person.name): [person] for person in persons}
        self._longest = max(
            len(key.split())
            for keys in (self._whole, self._titles, self._inverted, self._main, self._persons)
            for key in (keys or {"": []})
        )

    def _index(self, item: Item) -> None:
        whole, (title, *others) = letters(item.name), title_forms(item.name)
        year = whole.removeprefix(title).strip() if whole.startswith(f"{title} ") else ""
        for form in (title, *others):
            _add(self._titles, form, item)
            if year:
                _add(self._whole, f"{form} {year}", item)
        for form in inverted_forms(item.name):
            _add(self._inverted, form, item)
            if year:
                _add(self._whole, f"{form} {year}", item)
        if (main := main_title(item.name)) is not None:
            _add(self._main, main, item)
            if year:
                _add(self._whole, f"{main} {year}", item)
        if not year and whole != title:
            _add(self._whole, whole, item)
        if len(title) > 1 and not title.isascii() and title.upper() == title.lower():
            _add(self._caseless, title.replace(" ", ""), item)

    def find(self, text: str) -> tuple[Mention, ...]:
        """Return the mentions of a text, in order; no two overlap."""
        capitals = not is_shouted(text)
        words = [
            Word(m.start(), m.end(), letters(m[0]), capitals and m[0][0].isupper())
            for m in _WORD.finditer(text)
        ]
        taken = [False] * len(words)
        refused = [False] * len(words)
        mentions: list[Mention] = list(self._without_case(text, words, taken))
        for length in range(min(self._longest, len(words)), 0, -1):
            for first in range(len(words) - length + 1):
                if any(taken[first : first + length]):
                    continue
                stretch = words[first : first + length]
                mention = self._exactly(text, stretch, mentions)
                if mention is None and (bare := _without_possessive(text, stretch)):
                    mention = self._exactly(text, bare, mentions)
                if mention is not None:
                    taken[first : first + length] = [True] * length
                    mentions.append(mention)
                elif length == 1 and stretch[0].letters in self._titles:
                    refused[first] = True
        runs = _runs(text, words, taken, refused)
        misspelt = (self._by_spelling(run) for run in runs)
        mentions += [mention for mention in misspelt if mention is not None]
        return tuple(sorted(mentions, key=lambda mention: mention.start))

    def _without_case(
        self, text: str, words: Sequence[Word], taken: list[bool]
    ) -> Iterator[Mention]:
        if text.isascii() or not self._caseless:
            return
        for title in sorted(self._caseless, key=lambda title: -len(title)):
            start = text.find(title)
            if start >= 0:
                inside = [
                    at
                    for at, word in enumerate(words)
                    if word.start < start + len(title) and word.end > start
                ]
                if not any(taken[at] for at in inside):
                    for at in inside:
                        taken[at] = True
                    meant = tuple(self._caseless[title])
                    yield Mention(start, start + len(title), "item", meant, True)

    def _exactly(
        self, text: str, words: Sequence[Word], earlier: Sequence[Mention]
    ) -> Mention | None:
        key = " ".join(word.letters for word in words)
        start, end = words[0].start, words[-1].end
        if (meant := self._whole.get(key)) is not None:
            closing = 1 if text[end : end + 1] in (")", "]") else 0
            return Mention(start, end + closing, "item", tuple(meant), True)
        if (meant := self._persons.get(key)) is not None:
            return Mention(start, end, "person", tuple(meant), True)
        if (meant := self._inverted.get(key)) is not None and re.search(r",\s*\w+$", text[:end]):
            return Mention(start, end, "item", tuple(meant), True)
        meant, whole = self._titles.get(key), True
        if meant is None:
            meant, whole = self._main.get(key), False
        if meant is None or (len(key) == 1 and not key.isalpha()):
            return None
        meant = [item for item in meant if letters(bare_title(item.name)) == key] or meant
        certain = certainty(text, words, [mention.end for mention in earlier])
        if certain is None:
            return None
        return Mention(start, end, "item", tuple(meant), certain and whole)

    def _by_spelling(self, run: list[Word]) -> Mention | None:
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


def _without_possessive(text: str, words: Sequence[Word]) -> list[Word]:
    """Return the words of *Heat's* without its ending; none if there is no such ending."""
    *others, last = words
    written = text[last.start : last.end]
    plain = _POSSESSIVE.sub("", written)
    if plain == written or not plain:
        return []
    return [*others, Word(last.start, last.start + len(plain), letters(plain), last.capital)]


def _add(by_key: dict[str, list[Item]], key: str, item: Item) -> None:
    if key and item not in by_key.setdefault(key, []):
        by_key[key].append(item)


def _runs(
    text: str, words: Sequence[Word], taken: Sequence[bool], refused: Sequence[bool]
) -> Iterator[list[Word]]:
    """Yield stretches of words with capitals, small words between them included.

    A stretch of one word that was refused as a title is left out.
    """
    run: list[Word] = []
    dismissed = False

    def finished() -> Iterator[list[Word]]:
        while run and not run[-1].capital:
            run.pop()
        begins = bool(run) and begins_sentence(text[: run[0].start])
        useful = [w for w in run if w.letters not in word_list("titles", "common")]
        if run and not dismissed and useful and not (begins and len(run) == 1):
            yield list(run)

    for word, is_taken, is_refused in zip(words, taken, refused, strict=True):
        apart = bool(run) and text[run[-1].end : word.start].strip(" -:'\u2019&") != ""
        small = bool(run) and word.letters in SMALL_WORDS
        if is_taken or apart or not (word.capital or small):
            yield from finished()
            run, dismissed = [], False
        if not is_taken and (word.capital or (small and not apart)):
            run.append(word)
            dismissed |= is_refused and word.capital and len(run) == 1
            if len(run) > 1 and not is_refused:
                dismissed = False
    yield from finished()
