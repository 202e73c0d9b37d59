"""The subject of a verb: whose opinion it is, and what negates it or makes it unreal."""

from collections.abc import Sequence
from dataclasses import dataclass

from pkgllm.assistant.clauses import Clause, Unit
from pkgllm.assistant.lexicon import Entry

_AUXILIARIES = frozenset(
    ("filler", "do", "copula", "not", "unreal", "question", "too", "that", "adjective", "interest")
) | {"request"}
"""Between a subject and its verb."""
_SILENT = frozenset(("unreal", "interest", "request"))
_UNSURE = frozenset(
    ("word", "aspect", "compare", "request", "talk", "like", "clause", "interest", "adjective")
)


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose verb it is."""

    own: bool
    """Whether it is the person."""
    sure: bool
    """Whether every word before the verb is a known one."""
    silent: bool
    """Whether it is unreal, or what somebody else says of the person."""
    negations: int
    place: int
    """Where it begins in the words before the verb."""


def subject_of(
    before: Sequence[Unit], clause: Clause, inherited: bool | None, entry: Entry
) -> Subject:
    """Return the subject of a verb.

    Args:
        before: The units before it in its clause.
        clause: The whole clause.
        inherited: Whether the person is the subject of the clause before; None if unknown.
        entry: The verb. Without a subject, *loved it* is the person's own; *loves it* is not.
    """
    at = len(before) - 1
    while at >= 0 and before[at].kind in _AUXILIARIES:
        at -= 1
    kinds = [unit.kind for unit in before[at + 1 :]]
    negations = kinds.count("not")
    silent = any(kind in _SILENT for kind in kinds)
    sure = not any(kind in ("adjective", "question") for kind in kinds)
    if at < 0:
        if inherited is None and entry.third:
            return Subject(False, False, silent, negations, 0)
        return Subject(
            inherited is not False, sure and clause.lead != "clause", silent, negations, 0
        )
    unit = before[at]
    if unit.words == ("which",):
        return Subject(bool(inherited), False, silent, negations, at)
    together = {one.kind for one in before[:at]} >= {"own", "and"}
    if unit.kind == "other" and together:
        return Subject(True, sure, silent, negations, at)
    if unit.kind != "own":
        return Subject(False, False, silent, negations, at)
    # "my wife and I", "me and my wife"
    while at > 0 and before[at - 1].kind in ("and", "other", "my"):
        at -= 1
    outer = before[:at]
    kinds = [one.kind for one in outer]
    names = any(one.names for one in outer)
    # "My wife says I love it"; but "Unlike my wife, I ..." is another clause.
    silent |= any(kind in ("unreal", "hearsay") for kind in kinds)
    silent |= "other" in kinds and not names
    sure &= not silent and not any(kind in _UNSURE or kind == "other" for kind in kinds)
    return Subject(True, sure, silent, negations + kinds.count("not"), at)
