"""Extraction by rules: a small grammar of verdicts, read sentence by sentence.

:mod:`~pkgllm.assistant.mentions` finds the titles, :mod:`~pkgllm.assistant.grammar` reads what each
clause says of them, and this module keeps what was named and offered, to resolve *it* and *the
second one*. Where title, reference or verdict is not certain, the result is a question.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from pkgllm.assistant.clauses import Unit, units_of
from pkgllm.assistant.extraction import OPINIONS, Doubt, Extraction, Opinion, Question, Turn
from pkgllm.assistant.grammar import Reading, read_sentence
from pkgllm.assistant.intents import asks, intent_of
from pkgllm.assistant.mentions import Mention, MentionFinder
from pkgllm.assistant.tokens import Sentence, sentences
from pkgllm.corpora.catalogue import Item
from pkgllm.graph.personal_graph import Relation
from pkgllm.graph.personal_record import Wish

_ASKS_SEEN = re.compile(r"\b(?:have|did) (?:you|u)(?: \w+)? (?:seen|see|watched|watch)\b|\bseen\b")
_ASKS_LIKED = re.compile(r"\b(?:do|did) (?:you|u)(?: \w+)? (?:like|liked|enjoy|love)\b")
_YES = re.compile(r"^(?:oh |ah )?(?:yes|yeah|yep|yup|yea|sure|of course|definitely|i have|i did)\b")
_NO = re.compile(r"^(?:oh |ah )?(?:no|nope|nah|i have not|i did not|not yet|never)\b")


class RuleExtractor:
    """Extracts by rules.

    Args:
        finder: Finds the named items and people.

    Example:
        >>> from pkgllm.corpora.catalogue import Catalogue
        >>> finder = MentionFinder(Catalogue([
        ...     Item("1", "Heat (1995)"), Item("2", "Alien (1979)", {"star": ("Ann Lee",)}),
        ... ]))
        >>> extraction = RuleExtractor(finder).extract([
        ...     Turn("partner", "Have you seen Heat (1995)?"),
        ...     Turn("person", "Yes, it was boring. But I enjoy Ann Lee."),
        ... ])
        >>> [v.relation for v in extraction.verdicts], extraction.wishes[0].value
        (['disliked'], 'Ann Lee')
    """

    def __init__(self, finder: MentionFinder) -> None:
        self._finder = finder

    def extract(self, turns: Sequence[Turn]) -> Extraction:
        """Return the person's opinions at the end of the conversation."""
        dialogue = _Dialogue()
        for turn in turns:
            mentions = self._finder.find(turn.text)
            read = tuple(sentences(turn.text, mentions))
            if turn.speaker == "partner":
                dialogue.partner(read)
            else:
                dialogue.person(read)
        return dialogue.extraction()


@dataclass(frozen=True, slots=True)
class _Meant:
    """What an expression refers to."""

    groups: tuple[tuple[Item, ...], ...]
    """One tuple for each item; several in a tuple if any of them may be meant."""
    certain: bool
    doubt: Doubt = "reference"


@dataclass(slots=True)
class _Dialogue:
    """What was said, named and offered so far."""

    items: dict[str, Item] = field(default_factory=dict)
    opinions: dict[str, Opinion] = field(default_factory=dict)
    wishes: dict[str, Wish] = field(default_factory=dict)
    questions: dict[tuple[str, ...], Question] = field(default_factory=dict)
    offered: list[Item] = field(default_factory=list)
    asked: Relation | None = None
    """What the partner asked of the last titles: whether they were seen or liked."""
    asked_about: list[Item] = field(default_factory=list)
    answered: bool = True
    nothing_named: bool = False
    named: list[tuple[Item, ...]] = field(default_factory=list)
    """The titles of the last clause of this message that names any: what *it* is."""
    listed: list[tuple[Item, ...]] = field(default_factory=list)
    """The titles of the last sentence of this message that names any: what *them* is."""
    new_sentence: bool = True

    def partner(self, read: Sequence[Sentence]) -> None:
        if self.answered:
            self.asked, self.asked_about = None, []
        for sentence in read:
            items = [
                item
                for token in sentence.tokens
                if token.mention is not None and token.mention.kind == "item"
                for item in self._one_of(token.mention)
            ]
            words = " ".join(token.text for token in sentence.tokens)
            question = asks(units_of(sentence), ends_with=sentence.ends_with)
            if items:
                if self.answered:
                    self.offered = []
                self.offered += [item for item in items if item not in self.offered]
                self.asked, self.asked_about = None, []
                self.answered = False
            if question and _ASKS_LIKED.search(words):
                self.asked, self.asked_about = "liked", items or list(self.offered)
            elif question and _ASKS_SEEN.search(words):
                self.asked, self.asked_about = "seen", items or list(self.offered)

    def person(self, read: Sequence[Sentence]) -> None:
        self.named, self.listed, self.nothing_named = [], [], False
        for place, sentence in enumerate(read):
            units = units_of(sentence)
            for unit in units:
                if unit.kind == "title" and unit.mention is not None:
                    self._one_of(unit.mention)
            intent = intent_of(units, ends_with=sentence.ends_with)
            if place == 0 and intent != "question":
                self._answer(" ".join(word for unit in units for word in unit.words), units)
            self.new_sentence = True
            if intent not in ("help", "why", "remark"):
                for reading in read_sentence(sentence):
                    if reading.silent:
                        self._name(reading)
                    else:
                        self._add(reading)
        self.answered = True

    def extraction(self) -> Extraction:
        questions = [
            question
            for question in self.questions.values()
            if not any(item.id in self.opinions for item in question.items)
        ]
        return Extraction(
            tuple((self.items[item], opinion) for item, opinion in self.opinions.items()),
            tuple(self.wishes.values()),
            tuple(questions),
            self.nothing_named,
        )

    def _answer(self, words: str, units: Sequence[Unit]) -> None:
        """Read *yes* and *no* after a question about one title, or about all of them."""
        if self.answered or self.asked is None or not self.asked_about:
            return
        yes, no = _YES.search(words), _NO.search(words)
        if not (yes or no):
            return
        if any(unit.kind == "title" for unit in units) and "," not in words:
            return
        relation: Relation
        if self.asked == "seen":
            relation = "seen" if yes else "unseen"
        else:
            relation = "liked" if yes else "disliked"
        certain = len(self.asked_about) == 1
        groups = tuple((item,) for item in self.asked_about)
        self._write(_Meant(groups, certain), relation, certain)

    def _one_of(self, mention: Mention) -> tuple[Item, ...]:
        """Return what a mention means if it is one item, and remember it."""
        meant = self._meant_by(mention)
        if len(meant) == 1 and mention.kind == "item" and mention.certain:
            self.items[meant[0].id] = meant[0]
            return meant
        return ()

    def _meant_by(self, mention: Mention) -> tuple[Item, ...]:
        if len(mention.meant) == 1:
            return mention.meant
        # Of several items with one title, an earlier mentioned one is meant.
        known = tuple(item for item in mention.meant if item.id in self.items)
        return known if len(known) == 1 else mention.meant

    def _name(self, reading: Reading) -> None:
        """Remember what a clause named, for the pronouns that follow."""
        groups: list[tuple[Item, ...]] = []
        for unit in reading.targets:
            points = unit.reference is not None and unit.reference.number == "places"
            if (unit.mention is not None or points) and (meant := self._resolve(unit)) is not None:
                groups += meant.groups
        if not groups:
            return
        self.named = [*self.named, *groups] if reading.joins and not self.new_sentence else groups
        self.listed = groups if self.new_sentence else [*self.listed, *groups]
        self.new_sentence = False

    def _add(self, reading: Reading) -> None:
        if not reading.targets and not reading.nearest:
            if not reading.apart:
                self.nothing_named = True
            return
        people = [u for u in reading.targets if u.kind == "person"]
        for unit in people:
            if unit.mention is not None and reading.certain and unit.mention.certain:
                self._wish(unit.mention.meant[0].name, reading.relation)
        targets = [u for u in reading.targets if u.kind != "person"]
        if not targets and people:
            return
        if reading.nearest:
            meant = self._nearest()
            if meant is not None:
                self._write(meant, reading.relation, reading.certain)
            return
        excluded: list[Item] = []
        for unit in reading.except_for:
            found = self._resolve(unit)
            if found is not None:
                excluded += [item for group in found.groups for item in group]
        for unit in targets:
            meant = self._resolve(unit)
            if meant is None:
                continue
            groups = tuple(g for g in meant.groups if not any(item in excluded for item in g))
            self._write(
                _Meant(groups, meant.certain, meant.doubt), reading.relation, reading.certain
            )

    def _nearest(self) -> _Meant | None:
        """Return the title that a verdict without any is about."""
        if len(self.named) == 1:
            return _Meant((self.named[0],), len(self.named[0]) == 1)
        if self.named:
            return _Meant(tuple(self.named), False)
        if not self.answered and len(self.offered) == 1:
            return _Meant((tuple(self.offered),), True)
        return None

    def _resolve(self, unit: Unit) -> _Meant | None:
        if unit.mention is not None:
            meant = self._meant_by(unit.mention)
            certain = unit.mention.certain and len(meant) == 1
            return _Meant((meant,), certain, "title")
        reference = unit.reference
        if reference is None:
            return None
        ordinal = reference.number in ("places", "others")
        named = self.named if reference.number == "one" else self.listed
        if ordinal and self.offered:
            named = []
        pool: list[tuple[Item, ...]] = named or [(item,) for item in self.offered]
        if not pool:
            return None
        if reference.number == "others":
            left = [g for g in pool if not any(i.id in self.opinions for i in g)]
            sure = reference.count in (None, len(left)) and len(left) < len(pool)
            return _Meant(tuple(left), sure) if left else None
        places = reference.of(pool)
        if places is None:
            if ordinal:
                return None
            if reference.number == "one":
                return _Meant((tuple(item for group in pool for item in group),), False)
            return _Meant(tuple(pool), False)
        groups = tuple(pool[place] for place in places)
        return _Meant(groups, all(len(group) == 1 for group in groups))

    def _write(self, meant: _Meant, relation: Relation | None, certain: bool) -> None:
        for group in meant.groups:
            one = len(group) == 1
            if certain and meant.certain and one and relation is not None:
                item = group[0]
                self.items[item.id] = item
                self.opinions[item.id] = _joined(self.opinions.get(item.id), OPINIONS[relation])
                self.questions.pop((item.id,), None)
                continue
            opinion = Opinion() if relation is None else OPINIONS[relation]
            doubt: Doubt = "reference"
            if one:
                doubt = meant.doubt if certain and relation is not None else "verdict"
            key = tuple(sorted(item.id for item in group))
            known = self.questions.get(key)
            if known is None or known.opinion == Opinion():
                self.questions[key] = Question(group, opinion, doubt)

    def _wish(self, person: str, relation: Relation | None) -> None:
        if relation in ("liked", "disliked"):
            self.wishes[person] = Wish(
                "prefer" if relation == "liked" else "avoid", "person", person
            )


def _joined(before: Opinion | None, now: Opinion) -> Opinion:
    """Return both opinions in one; the newer one takes precedence."""
    if before is None:
        return now
    return Opinion(
        before.liked if now.liked is None else now.liked,
        before.seen if now.seen is None else now.seen,
    )
