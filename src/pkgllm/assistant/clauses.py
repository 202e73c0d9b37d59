"""A sentence as clauses of units: titles, references, verdicts, and the words that steer them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

from pkgllm.assistant.lexicon import Entry, Kind, entry_at, word_list
from pkgllm.assistant.mentions import Mention
from pkgllm.assistant.references import Reference, reference_at
from pkgllm.assistant.tokens import Sentence

Lead = Literal["", "and", "or", "nor", "but", "except", "clause", "unlike"]

PREDICATES = frozenset(("verb", "adjective", "intransitive", "saw", "not seen"))
_BOUNDARIES = frozenset(("and", "or", "nor", "but", "except", "clause"))
_PUNCTUATION = frozenset(",:()\u2013\u2014-")


@dataclass(frozen=True, slots=True)
class Unit:
    """One word, phrase, title or reference of a sentence."""

    words: tuple[str, ...]
    kind: Kind | Literal["title", "person", "reference", "word", "mark"]
    entry: Entry | None = None
    mention: Mention | None = None
    reference: Reference | None = None

    @property
    def names(self) -> bool:
        """Whether it names a title or a person, or refers to titles."""
        return self.kind in ("title", "person", "reference")


@dataclass(frozen=True, slots=True)
class Clause:
    """Units with at most one predicate, and the word that joins them to the clause before."""

    lead: Lead
    units: tuple[Unit, ...]

    @property
    def predicate(self) -> int | None:
        """The place of the first predicate; None if there is none."""
        return next((at for at, unit in enumerate(self.units) if unit.kind in PREDICATES), None)

    @property
    def named(self) -> tuple[Unit, ...]:
        """The titles, persons and references."""
        return tuple(unit for unit in self.units if unit.names)


def units_of(sentence: Sentence) -> tuple[Unit, ...]:
    """Return the units of a sentence, longest phrases first."""
    words = [token.text for token in sentence.tokens]
    units: list[Unit] = []
    place = 0
    while place < len(words):
        mention = sentence.tokens[place].mention
        if mention is not None:
            kind: Literal["title", "person"] = "title" if mention.kind == "item" else "person"
            unit, length = Unit(("\u25a1",), kind, mention=mention), 1
        else:
            unit, length = _plain(words, place)
        units.append(unit)
        place += length
    return tuple(_settled(units))


def _plain(words: Sequence[str], place: int) -> tuple[Unit, int]:
    if words[place] in _PUNCTUATION:
        return Unit((words[place],), "mark"), 1
    entry, length = entry_at(words, place)
    reference, referring = reference_at(words, place)
    if reference is not None and referring >= length:
        return Unit(tuple(words[place : place + referring]), "reference", reference=reference), (
            referring
        )
    found = tuple(words[place : place + length])
    return Unit(found, "word" if entry is None else entry.kind, entry), length


def _settled(units: Sequence[Unit]) -> Iterator[Unit]:
    """Decide by their neighbours what *like*, *they*, *no* and *which* are."""
    for place, unit in enumerate(units):
        before = units[place - 1] if place else None
        after = units[place + 1] if place + 1 < len(units) else None
        word = unit.words[0]
        if unit.words == ("like",) and (
            before is None
            or before.kind in ("mark", "reference")
            or before.words[-1] in word_list("phrases", "before_like")
        ):
            yield replace(unit, kind="like", entry=None)
        elif word == "they" and after is not None and after.kind in ("hearsay", "think"):
            yield replace(unit, kind="other", reference=None)
        elif word == "no" and (
            (before is None or before.kind == "mark")
            and (after is None or after.kind in ("mark", "own", "reference", "other", "but"))
        ):
            yield replace(unit, kind="filler", entry=None)
        elif (
            unit.reference is not None
            and unit.reference.number == "places"
            and after is not None
            and after.kind == "title"
        ):
            # "the second Rocky" is another film.
            yield replace(unit, kind="word", reference=None)
        elif unit.words == ("which",):
            yield replace(unit, kind="reference", reference=Reference("nearest"))
        else:
            yield unit


def clauses_of(units: Sequence[Unit]) -> Iterator[Clause]:
    """Yield the clauses of a sentence.

    Cuts are at punctuation, conjunctions and where a second predicate has its own subject.
    """
    lead: Lead = ""
    own: list[Unit] = []
    for place, unit in enumerate(units):
        boundary = unit.kind == "mark" or unit.kind in _BOUNDARIES
        before = units[place - 1] if place else None
        if boundary and not _joins_words(units, place):
            if unit.words[0] in ("when", "if", "that", "how") and own and own[-1].words == ("it",):
                # "I hate it when you do that"
                own[-1] = replace(own[-1], kind="filler", reference=None)
            if own:
                yield from _split(lead, own)
            elif unit.kind == "mark":
                continue
            own = []
            if unit.words == ("unlike",) or unit.words[-1] == "contrast":
                lead = "unlike"
            elif unit.kind == "mark":
                lead = ""
            else:
                lead = unit.kind  # type: ignore[assignment]
            if unit.words == ("and", "neither"):
                lead = "nor"
        elif unit.words == ("nor",):
            if own:
                yield from _split(lead, own)
            own, lead = [], "nor"
        elif (
            unit.kind == "not"
            and own
            and any(one.kind in PREDICATES for one in own)
            and before is not None
            and before.names
            and place + 1 < len(units)
            and units[place + 1].names
        ):
            # "I liked Rocky not Alien"
            yield from _split(lead, own)
            own, lead = [unit], "but"
        else:
            own.append(unit)
    if own:
        yield from _split(lead, own)


def _joins_words(units: Sequence[Unit], place: int) -> bool:
    """Return whether a mark joins adjectives, persons, or a verdict and its title."""
    before = units[place - 1] if place else None
    after = units[place + 1] if place + 1 < len(units) else None
    if before is None or after is None:
        return False
    if units[place].words == (",",) and before.words == ("never",):
        # "Never, ever liked it"
        return after.kind in ("filler", "verb", "saw")
    if units[place].words == (":",):
        # As in "Best movie ever: Heat".
        described = any(unit.kind == "adjective" for unit in units[:place])
        return after.kind == "title" and described and not any(u.names for u in units[:place])
    if units[place].kind not in ("and", "or", "but") and units[place].words != (",",):
        return False
    people = ("own", "other", "my")
    if units[place].kind == "and" and before.kind in people and after.kind in people:
        return True
    while after is not None and after.kind == "filler" and place + 2 < len(units):
        place += 1
        after = units[place + 1] if place + 1 < len(units) else None
    return before.kind == "adjective" and after is not None and after.kind == "adjective"


def _split(lead: Lead, units: list[Unit]) -> Iterator[Clause]:
    """Cut a run-on before the subject of its second predicate."""
    places = [at for at, unit in enumerate(units) if unit.kind in PREDICATES]
    for first, second in pairwise(places):
        if units[first].kind == "adjective" and units[first + 1].kind in ("other", "film", "word"):
            # "my best friend loves"
            continue
        between = range(first + 1, second)
        cut = next((at for at in reversed(between) if units[at].kind == "own"), None)
        if cut is None:
            cut = next(
                (
                    at
                    for at in reversed(between)
                    if units[at].kind == "reference" or units[at].kind == "other"
                ),
                None,
            )
            if (
                cut is not None
                and units[cut].kind == "reference"
                and not any(units[at].names for at in range(first + 1, cut))
            ):
                # The reference is the object of the first one.
                cut = cut + 1 if units[second].kind != "adjective" else None
        if cut is not None and 0 < cut < len(units):
            yield Clause(lead, tuple(units[:cut]))
            yield from _split("", units[cut:])
            return
    yield Clause(lead, tuple(units))
