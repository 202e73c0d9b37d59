"""What a sentence says of the titles in it: clause by clause, with negation, owner and mood.

A reading is certain only if every word on the way from *I* to the verdict to the title is a known
one. Anything else that carries a verdict is read as uncertain, so that it can be asked.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from pkgllm.assistant.clauses import Clause, Unit, clauses_of, units_of
from pkgllm.assistant.intents import asks, is_wish
from pkgllm.assistant.predicates import predicate_of
from pkgllm.assistant.tokens import Sentence
from pkgllm.graph.personal_graph import Relation

_ELLIPTICAL = frozenset(("own", "not", "do", "copula", "filler", "too", "clause"))
"""Kinds of words in *but I didn't*."""
_OPPOSITE: dict[Relation, Relation] = {"liked": "disliked", "seen": "unseen"}


@dataclass(frozen=True, slots=True)
class Reading:
    """What is said of some titles."""

    targets: tuple[Unit, ...]
    """Titles, persons and references; empty if a verdict names none."""
    relation: Relation | None
    """None if something is said, but not what."""
    certain: bool
    except_for: tuple[Unit, ...] = ()
    """What a reference to several excludes."""
    apart: bool = False
    """Whether ``targets`` are what the last reference to several excluded."""
    nearest: bool = False
    """Whether no title or reference is in the clause, so that the nearest title before is meant."""
    silent: bool = False
    """Whether nothing is said of the targets, which are only named."""
    joins: bool = False
    """Whether the clause goes on with a list of titles."""


@dataclass(slots=True)
class _State:
    """What the clauses before said, in one sentence."""

    last: Reading | None = None
    objects_follow: bool = False
    """Whether the last predicate has its titles behind it."""
    subject_own: bool | None = None
    pending: list[Unit] = field(default_factory=list)
    """Titles in front of a predicate that is still to come."""
    pending_nor: bool = False


def read_sentence(sentence: Sentence) -> Iterator[Reading]:
    """Yield what a sentence says of titles, in order.

    Example:
        >>> from pkgllm.assistant.tokens import sentences
        >>> (sentence,) = sentences("I loved the first one, the second was not my thing")
        >>> readings = [one for one in read_sentence(sentence) if not one.silent]
        >>> [(reading.relation, reading.certain) for reading in readings]
        [('liked', True), ('disliked', True)]
    """
    state = _State()
    clauses = list(clauses_of(units_of(sentence)))
    stated = dict(_stated(sentence, clauses))
    for place, clause in enumerate(clauses):
        wished = _wished(clause)
        if place in stated:
            following = clauses[place + 1] if place + 1 < len(clauses) else None
            readings = [_with_exception(one, following) for one in _clause(clause, state)]
            yield from readings or _interest(clause)
        elif wished:
            yield Reading(wished, "liked", False)
        elif sentence.ends_with != "?":
            yield from _interest(clause)
        named = tuple(unit for unit in clause.named if unit.kind != "person")
        joins = (
            clause.lead in ("", "and", "or", "nor")
            and clause.predicate is None
            and not (place and _are_pronouns(clauses[place - 1].named))
        )
        yield Reading(named, None, False, silent=True, joins=joins)


def _are_pronouns(units: Sequence[Unit]) -> bool:
    """Return whether units are only *it* or *them*."""
    numbers = {unit.reference.number if unit.reference else None for unit in units}
    return bool(numbers) and numbers <= {"one", "all"}


def _is_exception(clause: Clause | None) -> bool:
    """Return whether a clause excludes something: *except the last*, *but Heat*."""
    if clause is None or clause.predicate is not None:
        return False
    negated = any(unit.kind == "not" for unit in clause.units)
    return clause.lead == "except" or (
        clause.lead == "but" and bool(clause.named) and not negated and _plain(clause)
    )


def _with_exception(reading: Reading, following: Clause | None) -> Reading:
    """Return what is said of all titles without those that the next clause excludes."""
    if not _is_all(reading.targets) or following is None or not _is_exception(following):
        return reading
    known = bool(following.named) and _plain(following)
    return replace(reading, except_for=following.named, certain=reading.certain and known)


def _plain(clause: Clause) -> bool:
    """Return whether a clause without a predicate holds nothing but names and small words."""
    return all(
        unit.names or unit.kind in ("filler", "not", "too", "do", "but", "copula")
        for unit in clause.units
    )


def _interest(clause: Clause) -> Iterator[Reading]:
    """Yield that a title sounds good or will be watched, which is no verdict."""
    kinds = {unit.kind for unit in clause.units}
    titles = tuple(
        unit
        for unit in clause.named
        if unit.kind == "title" or (unit.reference and unit.reference.number == "places")
    )
    if titles and "interest" in kinds and not kinds & {"other", "hearsay"}:
        yield Reading(titles, None, False)


def _wished(clause: Clause) -> tuple[Unit, ...]:
    """Return the titles that a wish gives as examples: *something like Heat*."""
    likes = [
        at
        for at, unit in enumerate(clause.units)
        if unit.kind == "like" or unit.words[-1:] == ("like",) or unit.words == ("similar", "to")
    ]
    if not likes or not is_wish(clause.units):
        return ()
    return tuple(unit for unit in clause.units[likes[0] :] if unit.kind == "title")


def _stated(sentence: Sentence, clauses: Sequence[Clause]) -> Iterator[tuple[int, Clause]]:
    """Yield the clauses that state something, with their places: no questions, no wishes."""
    question = sentence.ends_with == "?"
    stop = len(clauses)
    if question:
        stop = next((at for at, clause in enumerate(clauses) if _clause_asks(clause)), 0)
    wished = False
    for place, clause in enumerate(clauses[:stop]):
        if is_wish(clause.units):
            wished = True
            continue
        if not question and _clause_asks(clause):
            return
        own = any(unit.kind in ("own", "reference") for unit in clause.units)
        if wished and not (clause.predicate is not None and own):
            continue
        wished = False
        yield place, clause


def _clause_asks(clause: Clause) -> bool:
    # "so did I", "neither have I"
    answers = clause.lead in ("nor", "clause") and {u.kind for u in clause.units} <= _ELLIPTICAL
    return not answers and (asks(clause.units) or is_wish(clause.units))


def _clause(clause: Clause, state: _State) -> Iterator[Reading]:
    negated = clause.lead == "nor" or state.pending_nor
    predicate = predicate_of(clause, subject_own=state.subject_own, negated=negated)
    named = clause.named
    if predicate is None:
        yield from _without_predicate(clause, named, state)
        return
    if predicate.own is not None:
        state.subject_own = predicate.own
    targets: tuple[Unit, ...] = predicate.targets
    excluded: tuple[Unit, ...] = ()
    if clause.lead in ("except", "but") and _is_all(state.pending):
        # "All except the last were great"; "all but the second"
        excluded, targets = targets, tuple(state.pending)
    elif state.pending and predicate.subject_like and not _are_pronouns(targets):
        # "Rocky, Alien and Heat were great"; "Neither Rocky nor Alien was good"
        together = clause.lead in ("and", "or", "nor", "") and bool(targets)
        if together and clause.lead in ("and", "or", "nor"):
            targets = (*state.pending, *targets)
            if state.pending_nor or clause.lead == "nor":
                predicate = predicate.negated_once()
        elif not targets and predicate.fragment:
            targets = tuple(state.pending)
    elif clause.lead == "nor" and not predicate.has_negation:
        predicate = predicate.negated_once()
    if not targets and state.last is not None and predicate.fragment:
        targets = state.last.targets if state.last.relation in ("seen", None) else ()
    state.pending, state.pending_nor = [], False
    relation, certain = predicate.relation, predicate.certain
    if predicate.silent:
        # It is somebody else's opinion, unreal or hearsay; "but I did" may still follow.
        if targets or state.last is None:
            bare: Relation = "seen" if predicate.bare == "unseen" else predicate.bare
            state.last = Reading(targets, bare, False, silent=True)
        state.objects_follow = predicate.objects_follow
        return
    nearest = not targets and predicate.fragment
    reading = Reading(targets, relation, certain, except_for=excluded, nearest=nearest)
    if not targets and not predicate.fragment:
        # A verdict about nothing that is named.
        if predicate.own and predicate.about_unknown:
            yield reading
        return
    state.last, state.objects_follow = reading, predicate.objects_follow
    yield reading


def _without_predicate(clause: Clause, named: tuple[Unit, ...], state: _State) -> Iterator[Reading]:
    kinds = [unit.kind for unit in clause.units]
    last = state.last
    negated = kinds.count("not") + (clause.lead == "nor")
    titles = tuple(unit for unit in named if unit.kind != "person")
    plain = _plain(clause)
    if not named:
        yield from _elliptical_subject(clause, kinds, state)
        return
    if _is_exception(clause) and (clause.lead == "except" or (last and _is_all(last.targets))):
        if last is not None and last.relation is not None:
            sure = last.certain and plain and last.relation == "seen"
            yield Reading(titles, _OPPOSITE.get(last.relation), sure, apart=True)
        return
    if last is not None and last.silent:
        # "My wife loves Rocky and Alien"
        state.last = replace(last, targets=(*last.targets, *titles))
        return
    if clause.units and clause.units[0].words == ("unlike",):
        yield Reading(titles, None, False)
        return
    if negated and last is not None and last.relation is not None:
        if clause.lead == "nor" and last.relation in ("disliked", "unseen", "liked"):
            relation: Relation | None = last.relation
            sure = last.certain and negated <= 2
        else:
            relation = _OPPOSITE.get(last.relation)
            sure = last.certain and negated == 1 and relation is not None
        yield Reading(titles, relation, sure and plain)
        return
    if negated and clause.units and clause.units[0].kind == "not":
        state.pending, state.pending_nor = list(titles), True
        return
    # "loved it, Alien: hated it" is no list.
    pronouns = last is not None and _are_pronouns(last.targets)
    joined = clause.lead in ("", "and", "or") and plain and not (pronouns and not clause.lead)
    if last is not None and joined and (state.objects_follow or "too" in kinds):
        reading = Reading(titles, last.relation, last.certain)
        state.last = Reading((*last.targets, *titles), last.relation, last.certain)
        if last.relation is not None:
            yield reading
        return
    state.pending.extend(titles)


def _elliptical_subject(clause: Clause, kinds: Sequence[str], state: _State) -> Iterator[Reading]:
    """Yield what *but I didn't*, *so do I* and *not me* say of the titles before."""
    last = state.last
    if last is None or last.relation is None or not last.targets:
        return
    first = next((kind for kind in kinds if kind not in ("filler", "not", "do")), "")
    if first != "own" or not set(kinds) <= _ELLIPTICAL:
        return
    negated = kinds.count("not") + (clause.lead == "nor")
    relation: Relation | None
    if clause.lead == "except":
        relation, sure = _OPPOSITE.get(last.relation), False
    elif negated:
        relation = _OPPOSITE.get(last.relation)
        sure = negated == 1 and "do" in kinds and relation is not None
    else:
        relation, sure = last.relation, "do" in kinds or "copula" in kinds
    yield Reading(last.targets, relation, sure)


def _is_all(targets: Iterable[Unit]) -> bool:
    return any(unit.reference is not None and unit.reference.number == "all" for unit in targets)
