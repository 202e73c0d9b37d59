"""Extraction by rules: words of liking, disliking and having seen, near the item they are about.

The person's messages are cut into clauses. A clause is about the items that it names; one that
names none is about the items that the partner named last (``Have you seen Heat?`` ``Loved it!``),
or that the person named in the same message. Interest in an item that the partner offered counts as
liking it, as in the answers of ReDial.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pkgllm.assistant.extraction import Extraction, Opinion, Turn
from pkgllm.assistant.mentions import Mention, MentionFinder
from pkgllm.corpora.catalogue import Item
from pkgllm.graph.personal_record import Wish

_NOT = (
    r"(?:\b(?:not|never|no|hardly|dont|didnt|havent|hasnt|hadnt|wasnt|isnt|doesnt|cant)"
    r"|\w+n['\u2019]t)"
)
_BETWEEN = (
    r"(?:\s+(?:really|particularly|much|too|very|that|all|quite|even|ever|yet|actually|a|an|the"
    r"|big|huge|so|to|i|have|had|been))*"
)

_DISLIKED = re.compile(
    rf"\b(?:hat(?:e|ed|es)|dislik\w+|terrible|awful|horrible|boring|bored|worst|bad|suck(?:s|ed)?"
    rf"|stupid|dumb|lame|disappoint\w+|overrated|garbage|trash|waste|cheesy|meh|can ?not stand"
    rf"|can't stand)\b"
    rf"|{_NOT}(?:\s+\w+){{0,3}}?\s+(?:like|liked|love|loved|enjoy|enjoyed|care|into|fan|good|great"
    rf"|funny|impressed|interested|my (?:thing|style|type|cup))\b",
    re.IGNORECASE,
)
_NOT_BAD = re.compile(rf"{_NOT}{_BETWEEN}\s+(?:bad|terrible|awful|boring|disappointed)\b", re.I)
_LIKED = re.compile(
    r"(?<!would )(?<!'d )\b(?:lov(?:e|ed|es|ing)|lik(?:e|ed|es)|enjoy(?:ed|s)?|great|good|amazing"
    r"|awesome|excellent|fantastic|favou?rites?|funny|hilarious|fan|best|brilliant|classics?"
    r"|wonderful|cool|perfect|beautiful|incredible|masterpiece|fun|sweet|nice|scary|adore[ds]?"
    r"|interesting|similar)\b",
    re.IGNORECASE,
)
_INTEREST = re.compile(
    r"\b(?:sounds?|looks?)\s+(?:really |very |pretty |so )?(?:good|great|interesting|fun|like|nice"
    r"|amazing|awesome|perfect|cool|funny)"
    r"|(?:\bwill|'ll|\bill|\bgonna|\bgoing to|\bneed to|\bmust|\bhave to|\bwant(?:ed)? to"
    r"|\bwould (?:like|love) to|'d (?:like|love) to|\bshould|\bplan to)\s+(?:\w+\s+){0,2}?"
    r"(?:check|watch|look|see|try|take|give|add|rent|get)\b"
    r"|\byes,? please\b|\bgood (?:idea|suggestion|choice|pick)\b|\blooking forward\b",
    re.IGNORECASE,
)
_UNSEEN = re.compile(
    rf"{_NOT}(?:\s+(?:yet|actually|ever|even|really|got|gotten|had|a|chance|to|have|think|believe|i))*\s+"
    r"(?:seen|watched|see|saw|watch|heard|familiar)\b",
    re.IGNORECASE,
)
_SEEN = re.compile(r"\b(?:seen|saw|watched|rewatch\w*|remember)\b", re.IGNORECASE)
_YES = re.compile(
    r"^\s*(?:oh,? )?(?:yes|yeah|yep|yup|sure|of course|definitely|i have|i did)\b", re.I
)
_NO = re.compile(r"^\s*(?:oh,? )?(?:no|nope|nah|i haven'?t|i have not|i did ?n[o']t)\b", re.I)
_ASKS = re.compile(
    r"\b(?:have you|did you|do you|are you|you (?:seen|like)|how about|what about)\b", re.I
)
_ASKS_SEEN = re.compile(r"\b(?:seen|saw|see|watched|watch|heard)\b", re.IGNORECASE)
_ALL = re.compile(r"\b(?:them|those|these|both|all|they)\b", re.IGNORECASE)
_PRONOUN = re.compile(
    r"\b(?:it|that|this|one|ones|them|those|these|both|all|they|too)\b", re.IGNORECASE
)
_SHORT_WORDS = 5
"""A clause of at most so many words is about the last items even without a pronoun."""
_ORDINAL = re.compile(r"\b(?:the )?(first|second|third|last)(?: one)?\b", re.IGNORECASE)
_PLACE = {"first": 0, "second": 1, "third": 2, "last": -1}
_CLAUSE_END = re.compile(
    r"[.!?;\n]+|,?\s+\b(?:but|although|though|however|except)\b", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class _Clause:
    text: str
    """Names are replaced by blanks."""
    mentions: tuple[Mention, ...]
    asks: bool


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
        reading = _Reading()
        for turn in turns:
            mentions = self._finder.find(turn.text)
            if turn.speaker == "partner":
                reading.partner(turn.text, mentions)
            else:
                reading.person(list(_clauses(turn.text, mentions)))
        return reading.extraction()


_DEFAULT = Opinion(True, True)
"""Of an item that a person names first without an opinion, as an example of their taste."""


class _Reading:
    """The state after the turns read so far."""

    def __init__(self) -> None:
        self._items: dict[str, Item] = {}
        self._opinions: dict[str, Opinion] = {}
        self._wishes: dict[str, Wish] = {}
        self._unclear: list[tuple[Item, ...]] = []
        self._offered: list[Item] = []
        self._answered = True
        self._asked_seen = False
        self._inherited = _DEFAULT

    def partner(self, text: str, mentions: Sequence[Mention]) -> None:
        items = [item for mention in mentions for item in self._meant(mention)]
        if items:
            # All items that the partner names before the person answers are offered.
            self._offered = items if self._answered else [*self._offered, *items]
            self._answered = False
            self._asked_seen = _ASKS_SEEN.search(text) is not None
            self._inherited = Opinion()

    def person(self, clauses: Sequence[_Clause]) -> None:
        own: list[Item] = []
        for place, clause in enumerate(clauses):
            opinion = _opinion(clause.text)
            named = [item for mention in clause.mentions for item in self._meant(mention)]
            people = [mention for mention in clause.mentions if mention.kind == "person"]
            if named:
                own = named
                if clause.asks and opinion.liked is None:
                    continue
                self._add(named, self._inherited if opinion.relation is None else opinion)
            elif not people:
                answer = None
                if place == 0 and not self._answered and self._asked_seen:
                    answer = _answer(clause.text)
                refers = len(clause.text.split()) <= _SHORT_WORDS or _PRONOUN.search(clause.text)
                stated = _joined(answer, opinion if refers else Opinion())
                self._add(own or _referred_to(clause.text, self._offered), stated)
            for mention in people:
                self._wish(mention.meant[0].name, opinion)
            if opinion.relation is not None:
                self._inherited = opinion
        self._answered = True

    def extraction(self) -> Extraction:
        return Extraction(
            tuple((self._items[item], opinion) for item, opinion in self._opinions.items()),
            tuple(self._wishes.values()),
            tuple(self._unclear),
        )

    def _meant(self, mention: Mention) -> list[Item]:
        if mention.kind != "item":
            return []
        if len(mention.meant) == 1:
            self._items[mention.meant[0].id] = mention.meant[0]
            return [mention.meant[0]]
        # Of several items with one title, an earlier mentioned one is meant.
        known = [item for item in mention.meant if item.id in self._items]
        if len(known) == 1:
            return known
        if mention.meant not in self._unclear:
            self._unclear.append(mention.meant)
        return []

    def _add(self, items: Sequence[Item], opinion: Opinion) -> None:
        if opinion == Opinion():
            return
        for item in items:
            before = self._opinions.get(item.id, Opinion())
            self._opinions[item.id] = _joined(before, opinion)

    def _wish(self, person: str, opinion: Opinion) -> None:
        if opinion.liked is not None:
            self._wishes[person] = Wish("prefer" if opinion.liked else "avoid", "person", person)


def _joined(before: Opinion | None, now: Opinion) -> Opinion:
    """Return both opinions in one; the newer one takes precedence."""
    if before is None:
        return now
    return Opinion(
        before.liked if now.liked is None else now.liked,
        before.seen if now.seen is None else now.seen,
    )


def _opinion(text: str) -> Opinion:
    """Return the opinion in the words of a clause."""
    disliked = _DISLIKED.search(_NOT_BAD.sub(" good ", text)) is not None
    interested = _INTEREST.search(text) is not None
    liked = _LIKED.search(text) is not None or _NOT_BAD.search(text) is not None
    if _UNSEEN.search(text) is not None:
        return Opinion(True if interested else None, False)
    seen = True if _SEEN.search(text) is not None else None
    if interested and not disliked:
        return Opinion(True, seen)
    if disliked:
        return Opinion(False, True)
    if liked:
        return Opinion(True, True)
    return Opinion(None, seen)


def _answer(text: str) -> Opinion | None:
    """Return what yes or no means after the question whether something was seen."""
    if _YES.search(text):
        return Opinion(None, True)
    return Opinion(None, False) if _NO.search(text) else None


def _referred_to(text: str, offered: Sequence[Item]) -> Sequence[Item]:
    if not offered:
        return []
    if (ordinal := _ORDINAL.search(text)) is not None:
        place = _PLACE[ordinal[1].lower()]
        return [offered[place]] if place < len(offered) else []
    return offered if _ALL.search(text) or len(offered) == 1 else offered[-1:]


def _clauses(text: str, mentions: Sequence[Mention]) -> Iterator[_Clause]:
    # Names are blanked: "The Good Son" is no praise, and "Mr. Deeds" does not end a sentence.
    blank = list(text)
    for mention in mentions:
        blank[mention.start : mention.end] = "\u25a1" * (mention.end - mention.start)
    plain = "".join(blank)
    start = 0
    for cut in [*_CLAUSE_END.finditer(plain), None]:
        stop = len(plain) if cut is None else cut.start()
        part = plain[start:stop]
        if part.strip():
            inside = tuple(m for m in mentions if start <= m.start < stop)
            asks = (cut is not None and "?" in cut[0]) or _ASKS.search(part) is not None
            yield _Clause(part.replace("\u25a1", " "), inside, asks)
        start = len(plain) if cut is None else cut.end()
