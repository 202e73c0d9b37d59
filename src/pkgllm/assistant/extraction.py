"""What a person says of items and people in a conversation, as verdicts and wishes.

An extractor reads turns and returns what the person thinks by then. It is judged by the same
measure whatever it is made of: ``scripts/score_extraction.py``.
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
    """``person`` is the owner of the graph, ``partner`` whoever talks to them."""
    text: str


@dataclass(frozen=True, slots=True)
class Opinion:
    """What a person is taken to think of an item."""

    liked: bool | None = None
    seen: bool | None = None

    @property
    def relation(self) -> Relation | None:
        """The fact that it comes to; a verdict says more than having seen it."""
        if self.liked is not None:
            return "liked" if self.liked else "disliked"
        if self.seen is not None:
            return "seen" if self.seen else "unseen"
        return None


@dataclass(frozen=True, slots=True)
class Extraction:
    """What a conversation says of the person."""

    opinions: tuple[tuple[Item, Opinion], ...] = ()
    """Of each item that the person says anything of, in order of mention."""
    wishes: tuple[Wish, ...] = ()
    unclear: tuple[tuple[Item, ...], ...] = ()
    """Items of which the person may mean any."""

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
        """Return what the person thinks at the end of the conversation."""
        ...


@dataclass(frozen=True, slots=True)
class Score:
    """How well some extracted statements agree with the person's own answers.

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
        found, told = set(extracted), set(answered)
        return cls(len(found & told), len(found), len(told))

    def __add__(self, other: "Score") -> "Score":
        return Score(
            self.num_right + other.num_right,
            self.num_extracted + other.num_extracted,
            self.num_answered + other.num_answered,
        )

    @property
    def precision(self) -> float:
        """Share of what was extracted that is right; 0 where nothing was."""
        return self.num_right / self.num_extracted if self.num_extracted else 0.0

    @property
    def recall(self) -> float:
        """Share of what was answered that was extracted; 0 where nothing was answered."""
        return self.num_right / self.num_answered if self.num_answered else 0.0

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 0 where nothing is right."""
        total = self.num_extracted + self.num_answered
        return 2 * self.num_right / total if total else 0.0


def statements(extraction: Extraction) -> Iterable[tuple[str, str]]:
    """Yield (item, statement) for ``liked``, ``disliked`` and ``seen``, as answers are scored."""
    for item, opinion in extraction.opinions:
        if opinion.liked is not None:
            yield item.id, "liked" if opinion.liked else "disliked"
        if opinion.seen:
            yield item.id, "seen"
