"""The predicate of a clause: its verdict, whose it is, and the titles that it is about."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pkgllm.assistant.clauses import PREDICATES, Clause, Unit
from pkgllm.assistant.lexicon import Entry
from pkgllm.assistant.subjects import subject_of
from pkgllm.graph.personal_graph import Relation

_STEPS = frozenset(
    (
        "filler",
        "copula",
        "do",
        "film",
        "too",
        "that",
        "think",
        "not",
        "and",
        "or",
        "mark",
        "my",
        "question",
        "talk",
    )
)
"""Kinds of words that may stand between a verdict and its title."""
_BEFORE_AN_OBJECT = frozenset(("filler", "film", "that", "my", "by", "adjective"))
_CONSIDERED = frozenset(("think",))
_NOT_OPEN = frozenset(("to", "that", "when", "if", "how", "for"))


@dataclass(frozen=True, slots=True)
class Predicate:
    """One verdict, or a statement that something was seen."""

    bare: Relation
    """Without negation."""
    relation: Relation | None
    """None if the words do not decide it."""
    certain: bool
    own: bool | None
    """Whether the person is the subject; None for *was great*, which has none."""
    targets: tuple[Unit, ...]
    subject_like: bool
    """Whether its titles stand before it."""
    objects_follow: bool
    silent: bool = False
    """Whether it is unreal, hearsay or somebody else's."""
    fragment: bool = False
    """Whether it consists of nothing but the verdict: *Loved it*, *awful film*."""
    has_negation: bool = False
    about_unknown: bool = False
    """Whether unknown words stand where a title could."""
    entry: Entry | None = None

    def negated_once(self) -> "Predicate":
        """Return the predicate with one more negation, from *neither* or *nor*."""
        if self.has_negation or self.entry is None:
            return self
        relation: Relation | None = self.entry.negated
        if self.entry.kind == "saw":
            relation = "unseen"
        return replace(
            self,
            relation=relation,
            certain=self.certain and relation is not None,
            has_negation=True,
        )


def predicate_of(
    clause: Clause, *, subject_own: bool | None, negated: bool = False
) -> Predicate | None:
    """Return the predicate of a clause, or None if it has none.

    Args:
        clause: Of a statement.
        subject_own: Whether the person is the subject of the clause before; None if unknown.
        negated: Whether *neither* or *nor* stands before it.
    """
    units = clause.units
    places = [
        at
        for at, unit in enumerate(units)
        if unit.kind in PREDICATES and (negated or not _negated_only(units, at))
    ]
    if not places:
        return None
    chosen, agreed = _main(units, places)
    entry = units[chosen].entry
    assert entry is not None
    if entry.kind in ("verb", "saw", "not seen"):
        return _verb(clause, chosen, entry, subject_own, agreed=agreed)
    return _adjective(clause, chosen, entry, agreed=agreed)


def _negated_only(units: Sequence[Unit], at: int) -> bool:
    entry = units[at].entry
    return (
        entry is not None
        and entry.kind == "adjective"
        and entry.polarity is None
        and not any(unit.kind == "not" for unit in units[:at])
    )


def _main(units: Sequence[Unit], places: Sequence[int]) -> tuple[int, bool]:
    """Return the place of the predicate that decides, and whether the others agree with it."""
    entries = [units[at].entry for at in places]
    verdicts = [
        (at, entry)
        for at, entry in zip(places, entries, strict=True)
        if entry is not None and entry.kind not in ("saw", "not seen")
    ]
    if not verdicts:
        return places[0], len({entry.kind for entry in entries if entry}) == 1
    polarities = {entry.polarity for _, entry in verdicts}
    verb = next((at for at, entry in verdicts if entry.kind == "verb"), None)
    first = verdicts[0][0] if verb is None else verb
    sure = [at for at, entry in verdicts if entry.sure]
    if verb is None and sure:
        first = sure[0]
    neutral = polarities - {"seen"}
    agreed = len(polarities) == 1 or (len(neutral) == 1 and len(verdicts) == 1)
    if any(entry is not None and entry.kind in ("saw", "not seen") for entry in entries):
        # "I saw Rocky great": two statements in one.
        agreed = False
    return first, agreed


def _verb(
    clause: Clause, at: int, entry: Entry, subject_own: bool | None, *, agreed: bool
) -> Predicate:
    units = clause.units
    before, after = units[:at], units[at + 1 :]
    subject = subject_of(before, clause, subject_own, entry)
    # Titles behind it; those after a comparison or a preposition are about something else.
    targets, clean = _objects(after)
    left = tuple(unit for unit in before[: subject.place] if unit.names)
    subject_like = False
    if not targets and left:
        between = before[_last_named(before[: subject.place]) + 1 : subject.place]
        clean = all(unit.kind in _STEPS for unit in between) and _open(after)
        targets, subject_like = _joined_left(before[: subject.place]), True
    certain = subject.sure and clean and agreed and entry.sure
    certain &= not any(unit.words[-1] in ("less", "least") for unit in after)
    if entry.kind == "saw" and (
        # "I think I saw it", "I saw it on a shelf"
        (subject.negations == 0 and _think(before)) or any(unit.kind == "word" for unit in after)
    ):
        certain = False
    negations = subject.negations
    relation, decided = _negated(entry, negations, units)
    if _begins_with_not(after):
        # "I liked neither of them"
        negations += 1
        relation, decided = _negated(entry, negations, units)
    # "I couldn't love it more"
    beyond = any("not" in u.words or u.kind == "not" for u in before) and any(
        "more" in unit.words for unit in after
    )
    silent = (subject.silent and not beyond) or not subject.own
    return Predicate(
        bare=entry.polarity or "unseen",
        relation=relation,
        certain=certain and decided,
        own=subject.own,
        targets=targets,
        subject_like=subject_like,
        objects_follow=not subject_like,
        silent=silent,
        fragment=not targets
        and all(unit.kind in ("filler", "own", "too", "do") for unit in (*before, *after)),
        has_negation=negations > 0,
        about_unknown=not targets and any(unit.kind == "word" for unit in after),
        entry=entry,
    )


def _think(units: Sequence[Unit]) -> bool:
    return any(unit.words == ("think",) for unit in units)


def _begins_with_not(units: Sequence[Unit]) -> bool:
    first = next((unit for unit in units if unit.kind != "filler"), None)
    return first is not None and first.kind == "not"


def _last_named(units: Sequence[Unit]) -> int:
    return max((at for at, unit in enumerate(units) if unit.names), default=-1)


def _joined_left(units: Sequence[Unit]) -> tuple[Unit, ...]:
    """Return the last title before a predicate, with those that *and* joins to it."""
    place = _last_named(units)
    targets = [units[place]]
    at = place - 1
    while at >= 0:
        if units[at].names and units[at + 1].kind in ("and", "or"):
            targets.insert(0, units[at])
        elif units[at].kind not in ("and", "or", "filler"):
            break
        at -= 1
    return tuple(targets)


def _objects(after: Sequence[Unit]) -> tuple[tuple[Unit, ...], bool]:
    """Return the titles that are objects, and whether only known words lead to them."""
    clean = True
    for at, unit in enumerate(after):
        if unit.names:
            following = after[at + 1 :]
            return (unit,), clean and _open(following)
        if unit.kind == "hearsay":
            return (), False
        if unit.kind not in _BEFORE_AN_OBJECT and unit.kind not in ("not", "saw"):
            clean = False
    return (), False


def _open(following: Sequence[Unit]) -> bool:
    """Return whether the words behind a title leave it a title: not *Frozen pizza*."""
    if not following:
        return True
    first = following[0]
    if first.kind in ("word", "aspect", "other", "copula") or first.words == ("as",):
        return False
    return not any(unit.kind in ("unreal", "hearsay", "interest") for unit in following[:2])


def _negated(entry: Entry, negations: int, units: Sequence[Unit]) -> tuple[Relation | None, bool]:
    """Return the relation that so many negations leave, and whether that is certain."""
    if entry.kind == "not seen":
        return "unseen", negations == 0
    if entry.kind == "saw":
        return ("seen", True) if negations == 0 else ("unseen", negations == 1)
    if negations == 0:
        return entry.polarity, True
    if negations == 1:
        compares = any(
            unit.kind == "compare" or unit.words[-1] in ("more", "better", "enough", "as")
            for unit in units
        )
        if compares:
            return None, False
        if entry.negated is None:
            return ("seen" if entry.polarity == "disliked" else None), False
        return entry.negated, True
    return None, False


def _adjective(clause: Clause, at: int, entry: Entry, *, agreed: bool) -> Predicate:
    units = clause.units
    before, after = units[:at], units[at + 1 :]
    named = _last_named(before)
    targets: tuple[Unit, ...] = ()
    certain = True
    negations = 0
    between: Sequence[Unit] = before
    outer: Sequence[Unit] = ()
    if named >= 0:
        targets = _joined_left(before)
        between, outer = before[named + 1 :], before[:named]
    kinds = [unit.kind for unit in between]
    negations += kinds.count("not")
    certain &= all(kind in _STEPS or kind in ("adjective", "own", "saw") for kind in kinds)
    # "my favorite", but "my wife's favorite"
    others = any(kind in ("other", "hearsay") for kind in kinds)
    if any(unit.words[0] in ("has", "have", "had") for unit in between) and "copula" not in kinds:
        # "It has a great cast"
        certain = False
    silent = others or any(kind in ("unreal", "interest", "request") for kind in kinds)
    outer_kinds = [unit.kind for unit in outer]
    if "think" in outer_kinds or "not" in outer_kinds:
        negations += outer_kinds.count("not")
    silent |= any(kind in ("hearsay", "unreal", "request") for kind in outer_kinds) or (
        "other" in outer_kinds and "own" not in outer_kinds
    )
    certain &= all(kind in _STEPS or kind in ("own", "adjective", "clause") for kind in outer_kinds)
    own_possessor = "own" in kinds or "own" in outer_kinds or "my" in kinds or "my" in outer_kinds
    subject_like = bool(targets) or not any(unit.names for unit in after)
    objects_follow = False
    following = after
    if not targets:
        place = next((i for i, unit in enumerate(after) if unit.names), None)
        if place is not None:
            lead = [unit.kind for unit in after[:place]]
            certain &= all(kind in ("filler", "film", "copula", "mark") for kind in lead) and (
                "copula" in lead or "mark" in lead or all(kind == "film" for kind in lead)
            )
            targets, following, objects_follow = (after[place],), after[:place], True
            certain &= _open(after[place + 1 :])
            negations += sum(unit.kind == "not" for unit in following)
    certain &= _ends_well(following)
    if any(unit.kind == "by" for unit in after):
        certain = False
    if any(unit.kind == "talk" for unit in following) and all(
        u.kind == "reference" for u in targets
    ):
        silent = True
    relation, decided = _negated(entry, negations, units)
    if any(unit.kind in ("compare", "like") for unit in units):
        certain = False
    if any(unit.kind == "aspect" for unit in units):
        certain = False
    return Predicate(
        bare=entry.polarity or "liked",
        relation=relation,
        certain=certain and decided and agreed and entry.sure and not silent,
        own=True if own_possessor else None,
        targets=targets,
        subject_like=subject_like,
        objects_follow=objects_follow,
        silent=silent,
        fragment=not targets
        and all(
            unit.kind in ("filler", "film", "copula", "not", "adjective", "my", "question")
            for unit in (*before, *after)
        ),
        has_negation=negations > 0,
        about_unknown=False,
        entry=entry,
    )


def _ends_well(following: Sequence[Unit]) -> bool:
    """Return whether an adjective ends its phrase, or a word for a film follows it."""
    for unit in following:
        if unit.kind in ("film", "adjective"):
            continue
        return unit.kind in ("filler", "too", "mark", "copula", "not", "and", "by") and (
            unit.words[0] not in _NOT_OPEN
        )
    return True
