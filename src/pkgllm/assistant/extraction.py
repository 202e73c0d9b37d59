"""A person's opinions of items and people in a conversation, as verdicts and wishes.

``scripts/score_extraction.py`` measures every :class:`Extractor` in the same way.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from pkgllm.corpora.catalogue import Item
from pkgllm.graph.personal_graph import Relation
from pkgllm.graph.personal_record import Verdict, Wish

Speaker = Literal["person", "partner"]


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a conversation."""

    speaker: Speaker
    """``person`` is the owner of the graph, ``partner`` the other side."""
    text: str


@dataclass(frozen=True, slots=True)
class Opinion:
    """A person's extracted opinion of an item; None for what is unknown."""

    liked: bool | None = None
    seen: bool | None = None

    @property
    def relation(self) -> Relation | None:
        """The relation of the fact; liked and disliked take precedence over seen."""
        if self.liked is not None:
            return "liked" if self.liked else "disliked"
        if self.seen is not None:
            return "seen" if self.seen else "unseen"
        return None


@dataclass(frozen=True, slots=True)
class Extraction:
    """The person's opinions in a conversation."""

    opinions: tuple[tuple[Item, Opinion], ...] = ()
    """In order of mention."""
    wishes: tuple[Wish, ...] = ()
    unclear: tuple[tuple[Item, ...], ...] = ()
    """Ambiguous mentions: the items that each may mean."""

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """The opinions as facts."""
        return tuple(
            Verdict(opinion.relation, item.id, item.name, item.item_class)
            for item, opinion in self.opinions
            if opinion.relation is not None
        )


class Extractor(Protocol):
    """Reads conversations."""

    def extract(self, turns: Sequence[Turn]) -> Extraction:
        """Return the person's opinions at the end of the conversation."""
        ...


@dataclass(frozen=True, slots=True)
class Score:
    """Agreement of extracted statements with the person's own answers.

    Example:
        >>> score = Score.of([("7", "liked"), ("8", "liked")], [("7", "liked"), ("9", "seen")])
        >>> score.precision, score.recall, score.f1
        (0.5, 0.5, 0.5)
    """

    num_right: int
    num_extracted: int
    num_answered: int

    @classmethod
    def of(
        cls, extracted: Iterable[tuple[str, ...]], answered: Iterable[tuple[str, ...]]
    ) -> "Score":
        """Compare statements, each counted once."""
        distinct, correct = set(extracted), set(answered)
        return cls(len(distinct & correct), len(distinct), len(correct))

    def __add__(self, other: "Score") -> "Score":
        return Score(
            self.num_right + other.num_right,
            self.num_extracted + other.num_extracted,
            self.num_answered + other.num_answered,
        )

    @property
    def precision(self) -> float:
        """Share of the extracted statements that are right; 0 if there are none."""
        return self.num_right / self.num_extracted if self.num_extracted else 0.0

    @property
    def recall(self) -> float:
        """Share of the answers that were extracted; 0 if there are none."""
        return self.num_right / self.num_answered if self.num_answered else 0.0

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 0 if nothing is right."""
        total = self.num_extracted + self.num_answered
        return 2 * self.num_right / total if total else 0.0


def statements(extraction: Extraction) -> Iterable[tuple[str, str]]:
    """Yield (item, statement) for ``liked``, ``disliked`` and ``seen``, as answers are scored."""
    for item, opinion in extraction.opinions:
        if opinion.liked is not None:
            yield item.id, "liked" if opinion.liked else "disliked"
        if opinion.seen:
            yield item.id, "seen"
