"""A message as sentences of tokens: words in lower case, punctuation, and named titles."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pkgllm.assistant.mentions import Mention

_PIECE = re.compile(
    r"#?\d+(?:st|nd|rd|th)?\b|[^\W_]+(?:['\u2019\u02bc`][^\W_]+)*|\.\.+|[.!?;:,()&\n\u2026\u3002]"
    r"|[\u2013\u2014]|(?<=\s)-+(?=\s)|['\u2019]s\b"
)
_SENTENCE_ENDS = frozenset(".!?;\n\u3002")
_REPEATED = re.compile(r"([^\W\d_])\1{2,}")

_WITHOUT_APOSTROPHE = {
    "dont": "do not",
    "doesnt": "does not",
    "didnt": "did not",
    "havent": "have not",
    "hasnt": "has not",
    "hadnt": "had not",
    "wasnt": "was not",
    "werent": "were not",
    "isnt": "is not",
    "arent": "are not",
    "aint": "is not",
    "cant": "can not",
    "cannot": "can not",
    "couldnt": "could not",
    "wouldnt": "would not",
    "shouldnt": "should not",
    "wont": "will not",
    "im": "i am",
    "ive": "i have",
    "thats": "that is",
    "whats": "what is",
    "youre": "you are",
    "youve": "you have",
    "theyre": "they are",
    "&": "and",
    "gonna": "going to",
    "wanna": "want to",
    "gotta": "have to",
    "u": "you",
    "ur": "your",
}
_IRREGULAR_NOT = {"ca": "can", "wo": "will", "sha": "shall", "ai": "is"}
_CLITICS = {"m": "am", "ve": "have", "ll": "will", "re": "are", "d": "would"}
_IS_AFTER = frozenset(
    (
        "it",
        "that",
        "this",
        "there",
        "here",
        "what",
        "who",
        "he",
        "she",
        "everyone",
        "everybody",
        "nobody",
        "which",
        "how",
        "where",
        "let",
    )
)


@dataclass(frozen=True, slots=True)
class Token:
    """A word, a punctuation mark or a named title."""

    text: str
    """Lower case; contractions are written out, so two tokens may share a place."""
    start: int
    end: int
    mention: Mention | None = None


@dataclass(frozen=True, slots=True)
class Sentence:
    """The tokens up to a full stop, question mark, exclamation mark, semicolon or line end."""

    tokens: tuple[Token, ...]
    ends_with: str
    """The mark at its end; empty at the end of the message."""


def words_of(word: str) -> tuple[str, ...]:
    """Return a word in lower case with its contraction written out.

    Example:
        >>> words_of("Didn\u2019t"), words_of("it's"), words_of("Wife's"), words_of("dont")
        (('did', 'not'), ('it', 'is'), ('wife', "'s"), ('do', 'not'))
    """
    word = re.sub("[\u2019\u02bc`]", "'", word.casefold())
    if (written := _WITHOUT_APOSTROPHE.get(word)) is not None:
        return tuple(written.split())
    stem, mark, ending = word.rpartition("'")
    if not mark:
        return (word,)
    if ending == "t" and stem.endswith("n"):
        return _IRREGULAR_NOT.get(stem[:-1], stem[:-1]), "not"
    if ending in _CLITICS:
        return *((stem,) if stem else ()), _CLITICS[ending]
    if ending == "s":
        return *((stem,) if stem else ()), "is" if stem in _IS_AFTER else "'s"
    return (word,)


def sentences(text: str, mentions: Sequence[Mention] = ()) -> Iterator[Sentence]:
    """Yield the sentences of a text that contain a word or a title.

    A mark inside a title ends no sentence.
    """
    tokens: list[Token] = []
    for token in _tokens(text, mentions):
        if token.mention is None and token.text in _SENTENCE_ENDS:
            if tokens:
                yield Sentence(tuple(tokens), token.text)
            tokens = []
        else:
            tokens.append(token)
    if tokens:
        yield Sentence(tuple(tokens), "")


def _tokens(text: str, mentions: Sequence[Mention]) -> Iterator[Token]:
    start = 0
    for mention in sorted(mentions, key=lambda mention: mention.start):
        yield from _plain(text, start, mention.start)
        yield Token("\u25a1", mention.start, mention.end, mention)
        start = mention.end
    yield from _plain(text, start, len(text))


def _plain(text: str, start: int, end: int) -> Iterator[Token]:
    for match in _PIECE.finditer(text, start, end):
        piece = match[0]
        if piece.startswith("..") or piece == "\u2026":
            piece = "."
        for word in words_of(piece):
            yield Token(_REPEATED.sub(r"\1\1", word), match.start(), match.end())
