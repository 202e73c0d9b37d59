"""Extraction by rules: a small grammar of verdicts, read sentence by sentence.

:mod:`~pkgllm.assistant.mentions` finds the titles, :mod:`~pkgllm.assistant.grammar` reads what each
clause says of them, and this module keeps what was named and offered, to resolve *it* and *the
second one*. Where title, reference or verdict is not certain, the result is a question.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

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
_YES = re.compile(
    r"^(?:oh |ah )?(?:yes|yeah|yep|yup|yea|sure|of course|definitely|i (?:have|did)(?! not))\b"
)
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


class _Named(NamedTuple):
    """One title that a text names."""

    items: tuple[Item, ...]
    """Several if any of them may be meant."""
    certain: bool
    """Whether it is one item, and its title is certainly meant."""


@dataclass(frozen=True, slots=True)
class _Meant:
    """What an expression refers to."""

    titles: tuple[_Named, ...]
    certain: bool
    """Whether it certainly refers to these."""
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
    named: list[_Named] = field(default_factory=list)
    """The titles of the last clause of this message that names any: what *it* is."""
    listed: list[_Named] = field(default_factory=list)
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
            if intent in ("help", "why") or (intent == "remark" and not self.named):
                continue
            for reading in read_sentence(sentence):
                if reading.silent:
                    self._name(reading)
                elif intent != "remark":
                    self._add(reading)
                elif reading.nearest and not any(unit.kind == "talk" for unit in units):
                    # "I saw Heat. Amazing!" may be about the film.
                    self._add(replace(reading, certain=False))
        self.answered = True

    def extraction(self) -> Extraction:
        questions = []
        for question in self.questions.values():
            open_items = tuple(i for i in question.items if self._is_open(i, question.opinion))
            if open_items:
                questions.append(replace(question, items=open_items))
        return Extraction(
            tuple((self.items[item], opinion) for item, opinion in self.opinions.items()),
            tuple(self.wishes.values()),
            tuple(questions),
            self.nothing_named,
        )

    def _is_open(self, item: Item, opinion: Opinion) -> bool:
        """Return whether an answer may add to what is certain of an item."""
        known = self.opinions.get(item.id)
        return known is None or (known.liked is None and opinion.liked is not None)

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
        # "No" after "Did you like it?" may mean that it was not seen.
        certain = len(self.asked_about) == 1 and relation != "disliked"
        self._write(_Meant(_certainly(self.asked_about), certain), relation, certain)

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
        titles: list[_Named] = []
        for unit in reading.targets:
            points = unit.reference is not None and unit.reference.number == "places"
            if (unit.mention is not None or points) and (meant := self._resolve(unit)) is not None:
                titles += meant.titles
        if not titles:
            return
        self.named = [*self.named, *titles] if reading.joins and not self.new_sentence else titles
        self.listed = titles if self.new_sentence else [*self.listed, *titles]
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
            self._add_nearest(reading)
            return
        excluded: list[Item] = []
        for unit in reading.except_for:
            exception = self._resolve(unit)
            if exception is not None:
                excluded += [item for title in exception.titles for item in title.items]
        certain = reading.certain and bool(excluded) == bool(reading.except_for)
        for unit in targets:
            meant = self._resolve(unit)
            if meant is None:
                self.nothing_named |= certain
                continue
            titles = tuple(
                title for title in meant.titles if not any(item in excluded for item in title.items)
            )
            self._write(replace(meant, titles=titles), reading.relation, certain)

    def _add_nearest(self, reading: Reading) -> None:
        """Take a verdict without any title or reference for one about the nearest title."""
        if self.named:
            certain = reading.certain and len(self.named) == 1
            self._write(_Meant(tuple(self.named), certain), reading.relation, certain)
        elif not self.answered and len(self.offered) == 1 and reading.relation != "seen":
            # "Great!" may be about the offer itself.
            meant = _Meant(_certainly(self.offered), False)
            self._write(meant, reading.relation, reading.certain)

    def _resolve(self, unit: Unit) -> _Meant | None:
        """Return the titles that a name or a reference means; None if there are none."""
        if unit.mention is not None:
            items = self._meant_by(unit.mention)
            title = _Named(items, unit.mention.certain and len(items) == 1)
            return _Meant((title,), title.certain, "title")
        reference = unit.reference
        if reference is None:
            return None
        ordinal = reference.number in ("places", "others")
        named = self.named if reference.number in ("one", "nearest") else self.listed
        if reference.number == "nearest" and not named:
            return None
        if ordinal and self.offered:
            named = []
        pool = named or list(_certainly(self.offered))
        if not pool:
            return None
        if reference.number == "others":
            left = [t for t in pool if not any(item.id in self.opinions for item in t.items)]
            sure = reference.count in (None, len(left)) and len(left) < len(pool)
            return _Meant(tuple(left), sure) if left else None
        places = reference.of(pool)
        if places is None:
            if ordinal:
                return None
            if reference.number == "one":
                any_of = tuple(item for title in pool for item in title.items)
                return _Meant((_Named(any_of, False),), False)
            return _Meant(tuple(pool), False)
        # "That's terrible" after an offer may be about anything.
        vague = unit.words in (("that",), ("this",)) and not named
        return _Meant(tuple(pool[place] for place in places), not vague)

    def _write(self, meant: _Meant, relation: Relation | None, certain: bool) -> None:
        for title in meant.titles:
            if certain and meant.certain and title.certain and relation is not None:
                (item,) = title.items
                self.items[item.id] = item
                self.opinions[item.id] = _joined(self.opinions.get(item.id), OPINIONS[relation])
                continue
            opinion = Opinion() if relation is None else OPINIONS[relation]
            doubt: Doubt = "reference"
            if len(title.items) == 1:
                doubt = "title" if not title.certain else meant.doubt
                doubt = doubt if certain and relation is not None else "verdict"
            key = tuple(sorted(item.id for item in title.items))
            known = self.questions.get(key)
            if known is not None:
                opinion = _joined(known.opinion, opinion)
                doubt = known.doubt if known.doubt == "title" else doubt
            self.questions[key] = Question(title.items, opinion, doubt)

    def _wish(self, person: str, relation: Relation | None) -> None:
        if relation in ("liked", "disliked"):
            self.wishes[person] = Wish(
                "prefer" if relation == "liked" else "avoid", "person", person
            )


def _certainly(items: Sequence[Item]) -> tuple[_Named, ...]:
    return tuple(_Named((item,), True) for item in items)


def _joined(before: Opinion | None, now: Opinion) -> Opinion:
    """Return both opinions in one; the newer one takes precedence."""
    if before is None:
        return now
    return Opinion(
        before.liked if now.liked is None else now.liked,
        before.seen if now.seen is None else now.seen,
    )
