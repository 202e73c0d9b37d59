"""A person's opinions of items and people in a conversation, as verdicts and wishes.

``scripts/score_extraction.py`` measures every :class:`Extractor` in the same way.
"""

from collections.abc import Sequence
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
