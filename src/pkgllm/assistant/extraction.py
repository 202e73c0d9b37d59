"""A person's opinions of items and people in a conversation, as verdicts and wishes.

``scripts/score_extraction.py`` measures every :class:`Extractor` in the same way.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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


OPINIONS: Mapping[Relation, Opinion] = {
    "liked": Opinion(True, True),
    "disliked": Opinion(False, True),
    "seen": Opinion(None, True),
    "unseen": Opinion(None, False),
}


Doubt = Literal["verdict", "title", "reference"]
"""What is not certain: what is said of the item, whether its title is meant at all, or to which of
several items a word such as *it* or a common title refers."""


@dataclass(frozen=True, slots=True)
class Question:
    """Something that a person said and that is not certain enough to be written."""

    items: tuple[Item, ...]
    """The items that may be meant; one if only the opinion is uncertain."""
    opinion: Opinion
    """What is probably said; empty if that is open."""
    doubt: Doubt


@dataclass(frozen=True, slots=True)
class Extraction:
    """The person's opinions in a conversation."""

    opinions: tuple[tuple[Item, Opinion], ...] = ()
    """The certain ones, in order of mention."""
    wishes: tuple[Wish, ...] = ()
    """The certain ones."""
    questions: tuple[Question, ...] = ()
    """What has to be asked; about an item with a certain opinion only what would add to it."""
    nothing_named: bool = False
    """Whether a verdict in the last message names no item that is known."""

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """The certain opinions as facts."""
        return tuple(
            Verdict(opinion.relation, item.id, item.name, item.item_class)
            for item, opinion in self.opinions
            if opinion.relation is not None
        )

    def agreed(self, answers: Sequence[tuple[Item, Relation]]) -> "Extraction":
        """Return the extraction with what the person answered to its questions."""
        added = tuple((item, OPINIONS[relation]) for item, relation in answers)
        return replace(self, opinions=(*self.opinions, *added), questions=())


class Extractor(Protocol):
    """Reads conversations."""

    def extract(self, turns: Sequence[Turn]) -> Extraction:
        """Return the person's opinions at the end of the conversation."""
        ...
