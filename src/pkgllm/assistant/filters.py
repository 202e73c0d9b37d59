"""The constraints in a wish: *something funny from the nineties, but no musicals*."""

import re
from collections.abc import Iterator, Sequence

from pkgllm.assistant.clauses import units_of
from pkgllm.assistant.guidance import Constraints, Property
from pkgllm.assistant.intents import intent_of, is_wish
from pkgllm.assistant.mentions import Mention
from pkgllm.assistant.scopes import Scopes, stems
from pkgllm.assistant.tokens import Sentence, sentences

_GENRES = {
    "comedy": "funny hilarious comedic comic humorous laugh romcom",
    "horror": "scary frightening creepy spooky terrifying",
    "romance": "romantic love romcom",
    "animation": "animated cartoon anime",
    "sci-fi": "scifi space futuristic",
    "science fiction": "scifi sci-fi space futuristic",
    "thriller": "thrilling suspenseful suspense",
    "family": "kid child",
    "mystery": "mysterious whodunit",
    "documentary": "docu",
    "war": "wartime",
    "western": "cowboy",
    "musical": "singing",
    "biography": "biopic biographical",
    "history": "historical",
    "drama": "dramatic",
    "action": "explosion",
    "adventure": "adventurous",
    "fantasy": "magical fantastical",
}
"""Further words for a genre, in the singular."""
_DECADES = {
    "twenties": 1920,
    "thirties": 1930,
    "forties": 1940,
    "fifties": 1950,
    "sixties": 1960,
    "seventies": 1970,
    "eighties": 1980,
    "nineties": 1990,
    "noughties": 2000,
}
_DECADE = re.compile(
    rf"\b(?:(?P<century>1[89]|20)?(?P<tens>\d)0 ?(?:'?s)\b|(?P<name>{'|'.join(_DECADES)})\b)"
)
_YEAR = r"(?P<year>(?:18|19|20)\d\d)\b(?!s)"
_BETWEEN = re.compile(
    r"\b(?:between|from) (?P<first>(?:18|19|20)\d\d) (?:and|to|until|till)"
    r" (?P<last>(?:18|19|20)\d\d)\b"
)
_BEFORE = re.compile(
    r"\b(?P<how>before|older than|earlier than|until|up to|not (?:after|newer than)"
    rf"|no (?:later|newer) than) (?:the )?(?:year )?{_YEAR}"
)
_AFTER = re.compile(
    r"\b(?P<how>after|newer than|later than|since|from|not (?:before|older than)|no older than"
    rf"|more recent than) (?:the )?(?:year )?{_YEAR}"
)
_IN = re.compile(rf"\b(?:in|of|from the year|year) {_YEAR}")
_NEGATIONS = frozenset(
    ("not", "no", "without", "nothing", "except", "never", "none", "less", "neither", "nor")
)
_LINKS = frozenset(
    ("too", "so", "very", "a", "an", "the", "any", "with", "by", "from", "of", "and", "that", "is")
)


def wished_constraints(text: str, mentions: Sequence[Mention], scopes: Scopes) -> Constraints:
    """Return what the wishes in a message require of a recommendation.

    A genre or another public value of the catalogue, a person, a decade or a year constrains;
    after *no*, *not* or *without* a value is excluded. Alternatives (*a comedy or a drama*) and
    everything else are left to the model, which reads the whole message.

    Args:
        text: The message.
        mentions: The titles and people that it names.
        scopes: Of the catalogue.
    """
    required: list[Property] = []
    excluded: list[Property] = []
    first, last = None, None
    for sentence in sentences(text, mentions):
        units = units_of(sentence)
        intent = intent_of(units, ends_with=sentence.ends_with)
        if intent not in ("wish", "question") and not is_wish(units):
            continue
        words = [token.text for token in sentence.tokens]
        for place, end, value in (
            *_people(sentence),
            *_values(words, scopes),
        ):
            if _alternative(words, place, end):
                continue
            (excluded if _negated(words, place) else required).append(value)
        since, until = _years(" ".join(words))
        first, last = since or first, until or last
    if first is not None and last is not None and first > last:
        first, last = None, None
    required = [one for one in dict.fromkeys(required) if one not in excluded]
    return Constraints(tuple(required), tuple(dict.fromkeys(excluded)), first, last)


def _people(sentence: Sentence) -> Iterator[tuple[int, int, Property]]:
    for place, token in enumerate(sentence.tokens):
        mention = token.mention
        if mention is not None and mention.kind == "person" and mention.certain:
            yield place, place + 1, ("person", mention.meant[0].name)


def _values(words: Sequence[str], scopes: Scopes) -> Iterator[tuple[int, int, Property]]:
    """Yield where a public value of the catalogue, or another word for a genre, stands."""
    singular = [stem for word in words for stem in (stems(word) or ("",))[:1]]
    for scope, value, key in scopes.public_values:
        length = len(key)
        for place in range(len(singular) - length + 1):
            if tuple(singular[place : place + length]) == key:
                yield place, place + length, (scope, value)
        if scope == "genre":
            others = _GENRES.get(value.casefold(), "").split()
            for place, word in enumerate(singular):
                if word in others and not (word == "love" and words[place - 1] in ("would", "i")):
                    yield place, place + 1, (scope, value)


def _negated(words: Sequence[str], place: int) -> bool:
    at = place - 1
    while at >= 0 and words[at] in _LINKS:
        at -= 1
    return at >= 0 and words[at] in _NEGATIONS


def _alternative(words: Sequence[str], place: int, end: int) -> bool:
    around = (*words[max(0, place - 2) : place], *words[end : end + 1])
    return "or" in around and not _negated(words, place)


def _years(text: str) -> tuple[int | None, int | None]:
    """Return the first and the last year that a wish names."""
    if (match := _BETWEEN.search(text)) is not None:
        return int(match["first"]), int(match["last"])
    if (match := _DECADE.search(text)) is not None:
        if match["name"]:
            start = _DECADES[match["name"]]
        else:
            century = match["century"] or ("20" if match["tens"] in "012" else "19")
            start = int(f"{century}{match['tens']}0")
        before = text[: match.start()].split()[-3:]
        if "before" in before or "than" in before:
            return None, start - 1
        if "after" in before or "since" in before:
            return start, None
        return (None, None) if "not" in before or "no" in before else (start, start + 9)
    if (match := _BEFORE.search(text)) is not None:
        return None, int(match["year"]) - (match["how"] in ("before", "older than", "earlier than"))
    if (match := _AFTER.search(text)) is not None:
        later = match["how"] in ("after", "newer than", "later than", "more recent than")
        year = int(match["year"])
        return (year, year) if match["how"] == "from" else (year + later, None)
    if (match := _IN.search(text)) is not None:
        return int(match["year"]), int(match["year"])
    return None, None
