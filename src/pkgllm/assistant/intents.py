"""What a sentence is for, before anything in it is taken for an opinion."""

from collections.abc import Sequence
from typing import Literal

from pkgllm.assistant.clauses import PREDICATES, Unit
from pkgllm.assistant.lexicon import phrases, word_list

Intent = Literal["help", "why", "wish", "question", "remark", "statement"]


def intent_of(units: Sequence[Unit], *, ends_with: str) -> Intent:
    """Return what a sentence is for.

    A question or a wish never gives a verdict; neither does a remark about the talk itself.

    Args:
        units: Of the sentence.
        ends_with: The mark at its end.

    Example:
        >>> from pkgllm.assistant.clauses import units_of
        >>> from pkgllm.assistant.tokens import sentences
        >>> text = "Thanks, you are great! Why the second one? Something funny. It was great."
        >>> [intent_of(units_of(s), ends_with=s.ends_with) for s in sentences(text)]
        ['remark', 'why', 'wish', 'statement']
    """
    said = _words(units)
    plain = _after_lead_ins(said)
    titles = any(unit.kind in ("title", "person") for unit in units)
    if tuple(plain) in phrases("phrases", "help") or tuple(said) in phrases("phrases", "help"):
        return "help"
    if _asks_why(plain):
        return "why"
    if not titles and _is_remark(said):
        return "remark"
    if _begins(plain, "only_a_wish") or is_wish(units):
        return "wish"
    if asks(units, ends_with=ends_with):
        return "wish" if _begins(plain, "asks_for_more") else "question"
    if not any(unit.names for unit in units) and word_list("phrases", "talk").intersection(said):
        return "remark"
    return "statement"


def is_wish(units: Sequence[Unit]) -> bool:
    """Return whether words ask for recommendations before they state an opinion."""
    said = _words(units)
    place = _first(said, "wish")
    if place is None:
        states = any(unit.kind in PREDICATES for unit in units)
        return _begins(_after_lead_ins(said), "asks_for_more") and not states
    # "I loved Rocky and want something like it" has a verdict of its own.
    at = 0
    for unit in units:
        at += len(unit.words)
        if at > place:
            break
        if unit.kind in PREDICATES:
            return False
    return True


def asks(units: Sequence[Unit], *, ends_with: str = "") -> bool:
    """Return whether words are a question: by their order, or by a question mark."""
    if ends_with == "?":
        return True
    said = _after_lead_ins(_words(units))
    if len(said) < 2:
        return bool(said) and said[0] in word_list("phrases", "question_words") and not ends_with
    first, second = said[:2]
    if second == "not" and len(said) > 2:
        second = said[2]
    if first in word_list("phrases", "auxiliaries"):
        return second in word_list("phrases", "subjects")
    if first in word_list("phrases", "relative_words"):
        return second in word_list("phrases", "auxiliaries")
    # "What a film!" asks nothing.
    exclaims = second in ("a", "an", "the") or ends_with == "!"
    return first in word_list("phrases", "question_words") and not exclaims


def _words(units: Sequence[Unit]) -> list[str]:
    return [word for unit in units for word in unit.words]


def _after_lead_ins(said: Sequence[str]) -> Sequence[str]:
    at = 0
    while at < len(said) and (said[at] == "," or said[at] in word_list("phrases", "lead_ins")):
        at += 1
    return said[at:]


def _length_at(said: Sequence[str], place: int, name: str) -> int:
    """Return the number of words of the longest phrase at a place; 0 if there is none."""
    listed = phrases("phrases", name)
    longest = max(map(len, listed))
    for length in range(min(longest, len(said) - place), 0, -1):
        if tuple(said[place : place + length]) in listed:
            return length
    return 0


def _begins(said: Sequence[str], name: str) -> bool:
    return bool(said) and _length_at(said, 0, name) > 0


def _first(said: Sequence[str], name: str) -> int | None:
    return next((at for at in range(len(said)) if _length_at(said, at, name)), None)


def _asks_why(said: Sequence[str]) -> bool:
    length = _length_at(said, 0, "why") if said else 0
    if not length or (_length_at(said, 0, "why_of_others") > length):
        return False
    rest = [word for word in said[length:] if word != ","]
    return len(rest) < 2 or bool(word_list("phrases", "answer_words").intersection(rest))


def _is_remark(said: Sequence[str]) -> bool:
    """Return whether all words are greetings, thanks or single words of praise."""
    at = 0
    while at < len(said):
        length = _length_at(said, at, "remark")
        if not length and at:
            length = _length_at(said, at, "remark_ends")
        if not length:
            return False
        at += length
    return True
