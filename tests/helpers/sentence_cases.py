"""The everyday sentences as cases, and how well an extractor reads them."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product

from helpers.everyday_sentences import COMMON, TITLES
from pkgllm.assistant.extraction import Extractor, Turn
from pkgllm.corpora.catalogue import Catalogue, Item, bare_title

CATALOGUE = Catalogue([Item(f"f{n:02}", name) for n, name in enumerate((*TITLES, *COMMON))])

SIGNS = {"+": "liked", "-": "disliked", "s": "seen", "u": "unseen", "0": None}
OPPOSITES = {"liked": "disliked", "disliked": "liked", "seen": "unseen", "unseen": "seen"}


@dataclass(frozen=True, slots=True)
class Case:
    """One sentence."""

    family: str
    text: str
    offered: tuple[str, ...]
    expected: dict[str, tuple[str | None, ...]]
    """By name of the film; the first relation is what is said, the others are acceptable."""

    @property
    def said(self) -> dict[str, str]:
        """The facts that the sentence states."""
        return {name: signs[0] for name, signs in self.expected.items() if signs[0] is not None}


@dataclass(frozen=True, slots=True)
class SentenceScore:
    """Counts of facts over sentences."""

    num_sentences: int
    num_said: int
    """Facts that the sentences state."""
    num_written: int
    wrong: tuple[str, ...]
    """Sentences with a written fact that is not acceptable, with the fact."""
    opposite: tuple[str, ...]
    """Those of them whose fact is the opposite of what is said."""
    missed: tuple[str, ...]
    """Sentences with a stated fact that is neither written nor asked about."""

    @property
    def wrong_share(self) -> float:
        """Of the written facts."""
        return len(self.wrong) / self.num_written

    @property
    def recall(self) -> float:
        """Share of the stated facts that are written or asked about."""
        return 1 - len(self.missed) / self.num_said


def score(extractor: Extractor, sentences: Iterable[Case]) -> SentenceScore:
    """Read every sentence alone, after what was offered."""
    listed = list(sentences)
    num_written, num_said = 0, 0
    wrong, opposite, missed = [], [], []
    for case in listed:
        turns = [Turn("person", case.text)]
        if case.offered:
            lines = "\n".join(f"How about {name}?" for name in case.offered)
            turns.insert(0, Turn("partner", lines))
        extraction = extractor.extract(turns)
        written = {verdict.name: verdict.relation for verdict in extraction.verdicts}
        asked = {item.name for question in extraction.questions for item in question.items}
        num_written += len(written)
        num_said += len(case.said)
        for name, relation in written.items():
            acceptable = case.expected.get(name, (None,))
            if relation not in acceptable:
                wrong.append(f"{case.text!r}: {relation} {name}")
                if OPPOSITES[relation] in acceptable:
                    opposite.append(wrong[-1])
        missed += [
            f"{case.text!r}: {relation} {name}"
            for name, relation in case.said.items()
            if name not in asked
            and (name not in written or written[name] not in case.expected[name])
        ]
    return SentenceScore(
        len(listed), num_said, num_written, tuple(wrong), tuple(opposite), tuple(missed)
    )


def cases(families: Mapping[str, str]) -> Iterator[Case]:
    """Yield every sentence; the titles go round."""
    number = 0
    for family, lines in families.items():
        for line in filter(None, map(str.strip, lines.splitlines())):
            signs, _, pattern = line.partition(" | ")
            for text in _expanded(pattern):
                titles = [TITLES[(number + step) % len(TITLES)] for step in range(3)]
                number += 1
                yield _case(family, text, titles, signs)


def _case(family: str, text: str, titles: list[str], signs: str) -> Case:
    names = dict(zip("ABC", titles, strict=True))
    expected: dict[str, tuple[str | None, ...]] = {}
    for letter, name in names.items():
        text = text.replace(f"@{letter}", bare_title(name))
        match = re.search(rf"{letter}([-+su0]*)", signs)
        expected[name] = tuple(SIGNS[mark] for mark in (match[1] if match else "") or "0")
    return Case(family, text, tuple(titles) if family.startswith("offer") else (), expected)


def _expanded(pattern: str) -> Iterator[str]:
    pieces = [piece.split("|") for piece in re.split(r"[\[\]]", pattern)]
    for chosen in product(*pieces):
        yield " ".join("".join(chosen).split())
